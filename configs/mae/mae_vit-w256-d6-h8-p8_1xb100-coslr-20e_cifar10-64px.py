# The teacher of the small MIM-HD configs: the host's MAE, wider than their student (256
# against 192) and with more heads (8 against 3). Depth and length of training were
# chosen for a CPU.
_base_ = './mae_vit-tiny-p8_1xb100-coslr-12e_cifar10-64px.py'

model = dict(
    backbone=dict(
        arch=dict(embed_dims=256, num_layers=6, num_heads=8, feedforward_channels=1024),
    ),
    neck=dict(embed_dim=256),
)
max_epochs = 20
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-2,
        by_epoch=True,
        begin=0,
        end=2,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        by_epoch=True,
        begin=2,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=max_epochs)
default_hooks = dict(checkpoint=dict(interval=10))
