# AdamW, 300 epochs, 10 epochs of warm-up, cosine to 1e-5, total batch 2048.
#
# Peak learning rate: the released code divides 1.5e-3 by 2048 and multiplies by the
# batch, so 1.5e-3 belongs to 2048 images a step; its README gives 1.5e-3 for 1024. We
# follow the code (and BEiT-2). Other batches: `--auto-scale-lr`.
# Weight decay: constant 0.05 as in BEiT-2; the released code lets it fall to 0 along a
# cosine, and whether the paper means that is unknown. Tokens and position embeddings
# are not decayed here; in the released code they are.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale=1.0,  # bf16 needs no scaling
    optimizer=dict(type='AdamW', lr=1.5e-3, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='medic_mm.LayerDecayOptimWrapperConstructor',
    clip_grad=dict(max_norm=3.0),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-2,
        by_epoch=True,
        begin=0,
        end=10,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        by_epoch=True,
        begin=10,
        end=300,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300)
auto_scale_lr = dict(base_batch_size=2048)
