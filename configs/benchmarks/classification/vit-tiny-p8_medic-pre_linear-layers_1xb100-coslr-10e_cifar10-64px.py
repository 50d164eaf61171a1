# Linear probe of the MEDiC student of laptop size on every block; the best is reported.
_base_ = './vit-tiny-p8_medic-pre_linear-cls_1xb100-coslr-10e_cifar10-64px.py'

model = dict(
    backbone=dict(out_indices=list(range(6))),
    neck=dict(features=('cls', 'mean'), num_layers=6, layer_norm=True),
    head=dict(
        _delete_=True,
        type='medic_mm.LayerProbeHead',
        num_classes=10,
        in_channels=384,
        num_layers=6,
        init_cfg=[dict(type='TruncNormal', layer='Linear', std=0.01)],
    ),
)
val_evaluator = dict(_delete_=True, type='medic_mm.LayerAccuracy')
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best='layer_accuracy/best_top1'))
