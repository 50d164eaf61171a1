# TinyImageNet (200 classes, 100,000 training images of 64 px) for MIM-HD and TinyMIM.
#
# The paper names the data and 16-pixel patches but no image size. Its teacher has 14x14
# patches, so the images are enlarged to 224 px.
#
# train/<class>/images/* is as the archive unpacks. Its val/images is one folder: sort
# it into val/<class>/ by val_annotations.txt, or leave k-NN out with custom_hooks=[].
_base_ = './imagenet_bs320_mimhd.py'

data_root = 'data/tiny-imagenet-200/'
labelled = dict(
    type='medic_mm.ImageFolder',
    data_root=data_root,
    data_prefix='train',
    with_label=True,
    per_class=50,
    pipeline=_base_.eval_pipeline,
)
train_dataloader = dict(dataset=dict(data_root=data_root))
custom_hooks = [
    dict(type='medic_mm.SkippedImagesHook'),
    dict(type='medic_mm.StopOnNaNHook'),
    dict(
        type='medic_mm.KNNHook',
        interval=10,
        k=(10, 20),
        train_dataloader=dict(_base_.knn_dataloader, dataset=labelled),
        test_dataloader=dict(
            _base_.knn_dataloader,
            dataset=dict(labelled, data_prefix='val', per_class=None),
        ),
    ),
]
