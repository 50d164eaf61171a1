# MEDiC's fine-tuned ViT-B/16 on ImageNet-A: its 200 classes, in folders named by
# synset; the classifier chooses among these alone. For tools/test.py.
_base_ = './vit-base-p16_medic-pre_8xb128-amp-coslr-100e_in1k.py'

test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='medic_mm.ImageFolder',
        data_root='data/imagenet-a/',
        with_label=True,
        pipeline=_base_.test_pipeline,
    ),
)
test_evaluator = dict(
    _delete_=True, type='medic_mm.SubsetAccuracy', classes='imagenet-a'
)
