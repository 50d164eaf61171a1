# Linear probe by MAE's protocol: LARS, 0.1 for 256 images, no decay, 90 epochs.
#
# MEDiC's two sources differ in kind: its script trains AdamW on CLS + mean of every
# block, its appendix AdamW with mixed images on CLS. Which gave 60.5 is not known.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale=1.0,  # bf16 needs no scaling
    optimizer=dict(type='mmpretrain.LARS', lr=1.6, weight_decay=0.0, momentum=0.9),
    constructor='medic_mm.LayerDecayOptimWrapperConstructor',
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,
        by_epoch=True,
        begin=0,
        end=10,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        by_epoch=True,
        begin=10,
        end=90,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=90)
auto_scale_lr = dict(base_batch_size=4096)
