# MIM-HD's fine-tuned ViT-B/16 on ImageNet-V2: all 1000 classes, in folders named 0 to
# 999. For tools/test.py.
_base_ = './vit-base-p16_mimhd-pre_8xb128-amp-coslr-100e_in1k.py'

test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='medic_mm.ImageFolder',
        data_root='data/imagenetv2-matched-frequency-format-val/',
        with_label=True,
        pipeline=_base_.test_pipeline,
    ),
)
test_evaluator = dict(
    _delete_=True,
    type='medic_mm.SubsetAccuracy',
    # folders are sorted as text: 0, 1, 10, 100, 101, ...
    classes=[int(name) for name in sorted(str(i) for i in range(1000))],
)
