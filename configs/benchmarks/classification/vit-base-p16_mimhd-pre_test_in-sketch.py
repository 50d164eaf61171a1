# MIM-HD's fine-tuned ViT-B/16 on ImageNet-Sketch: all 1000 classes, in folders named by
# synset. For tools/test.py.
_base_ = './vit-base-p16_mimhd-pre_8xb128-amp-coslr-100e_in1k.py'

test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='medic_mm.ImageFolder',
        data_root='data/imagenet-sketch/',
        with_label=True,
        pipeline=_base_.test_pipeline,
    ),
)
