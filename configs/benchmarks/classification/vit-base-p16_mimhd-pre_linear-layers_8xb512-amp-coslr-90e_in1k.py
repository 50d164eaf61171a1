# Linear probe of a MIM-HD student on every block, class token beside mean patch token;
# the best block is reported (BEiT's protocol).
_base_ = './vit-base-p16_mimhd-pre_linear-cls_8xb512-amp-coslr-90e_in1k.py'

model = dict(
    backbone=dict(out_indices=list(range(12))),
    neck=dict(features=('cls', 'mean'), num_layers=12, layer_norm=True),
    head=dict(
        _delete_=True,
        type='medic_mm.LayerProbeHead',
        num_classes=1000,
        in_channels=1536,
        num_layers=12,
        init_cfg=[dict(type='TruncNormal', layer='Linear', std=0.01)],
    ),
)
val_evaluator = dict(_delete_=True, type='medic_mm.LayerAccuracy')
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best='layer_accuracy/best_top1'))
