# Fine-tuning as the released MEDiC script does it: AdamW 5e-4 at batch 1024, layer
# decay 0.65, 20 of 100 epochs of warm-up. The code is BEiT-2's, yet the script reads
# the class token; BEiT-2's 85.0 are of the mean patch token.
#
# Its script runs 4 x 128 images; 5e-4 is BEiT-2's rate for 1024, which the paper's
# appendix, as cited by ExPLoRe, gives too. That appendix also says warm-up 10, mixup
# 0.6, cutmix 0.75 and a last rate of 4e-4, the latter surely a slip.
#
# The last rate is a ratio, 1e-6 of 5e-4: 1e-6 for every group would be more than the
# first layers start from. In BEiT-2 it is decayed by layer as all others are.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale=1.0,  # bf16 needs no scaling
    optimizer=dict(type='AdamW', lr=5e-4, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='medic_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.65),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        by_epoch=True,
        begin=0,
        end=20,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=2e-3,
        by_epoch=True,
        begin=20,
        end=100,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100)
auto_scale_lr = dict(base_batch_size=1024)
