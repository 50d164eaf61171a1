# AdamW, 100 epochs, 5 epochs of warm-up, cosine to 0, total batch 2560.
#
# The MIM-HD paper gives AdamW, 1.5e-3 and a cosine, and nothing else. 1.5e-3 is 1.5e-4
# per 256 images, TinyMIM's rule, at 2560; betas, weight decay, the share of warm-up
# (5 %) and no clipping of gradients are TinyMIM's.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale=1.0,  # bf16 needs no scaling
    optimizer=dict(type='AdamW', lr=1.5e-3, betas=(0.9, 0.95), weight_decay=0.05),
    constructor='medic_mm.LayerDecayOptimWrapperConstructor',
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        by_epoch=True,
        begin=0,
        end=5,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        by_epoch=True,
        begin=5,
        end=100,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100)
auto_scale_lr = dict(base_batch_size=2560)
