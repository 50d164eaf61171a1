# CIFAR-10 as image folders, enlarged to 64 px, crops and flips drawn anew each time.
#
# For methods whose teacher or decoder looks at pixels as they are: no mask here.
_base_ = './cifar10-64px_bs100_medic.py'

train_pipeline = [
    dict(type='medic_mm.LoadReadableImage'),
    dict(
        type='RandomResizedCrop',
        scale=64,
        crop_ratio_range=(0.4, 1.0),
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
custom_hooks = [
    dict(type='medic_mm.SkippedImagesHook'),
    dict(type='medic_mm.StopOnNaNHook'),
    dict(
        type='medic_mm.KNNHook',
        interval=4,
        k=(20,),
        train_dataloader=dict(_base_.knn_dataloader, dataset=_base_.labelled),
        test_dataloader=dict(
            _base_.knn_dataloader, dataset=dict(_base_.labelled, data_prefix='val')
        ),
    ),
]
