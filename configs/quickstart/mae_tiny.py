# The teacher of mimhd_tiny.py: the host's MAE on the built-in data set, wider than the
# student and with more heads.
_base_ = [
    '../_base_/models/mae_vit-tiny-p8-64px.py',
    '../_base_/datasets/embedded_shapes_bs100.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/adamw_bs100_coslr_12e_quickstart.py',
]

model = dict(
    backbone=dict(
        arch=dict(embed_dims=192, num_layers=4, num_heads=8, feedforward_channels=768),
    ),
    neck=dict(decoder_embed_dim=64, decoder_depth=1),
)
max_epochs = 20
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-2,
        by_epoch=True,
        begin=0,
        end=1,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        by_epoch=True,
        begin=1,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=max_epochs)
default_hooks = dict(
    logger=dict(interval=25), checkpoint=dict(interval=1, max_keep_ckpts=1)
)
