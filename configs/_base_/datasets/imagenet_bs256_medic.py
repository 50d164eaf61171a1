# ImageNet-1K for masked pre-training, 256 images a GPU, with the online k-NN.
#
# Views: the released code has no data pipeline; its config asks for RandomResizedCrop
# 0.2-1.0, flip and colour jitter 0.4, and says nothing of interpolation and order.
# Bicubic as in BEiT-2; the crop comes first, so that the jitter works on fewer pixels.
data_root = 'data/imagenet/'
data_preprocessor = dict(
    type='medic_mm.HostSamplesPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
train_pipeline = [
    dict(type='medic_mm.LoadReadableImage'),
    dict(
        type='RandomResizedCrop',
        scale=224,
        crop_ratio_range=(0.2, 1.0),
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
    # int(196 * 0.40) = 78 hidden patches, blocks of at least 16
    dict(type='medic_mm.BlockMask', grid=14, mask_ratio=0.40, min_area=16),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=256,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    drop_last=True,
    # pre-training reads no labels, so any folder of images will do
    dataset=dict(
        type='medic_mm.ImageFolder',
        data_root=data_root,
        data_prefix='train',
        pipeline=train_pipeline,
    ),
)

# k-NN every 10 epochs: 50 training images a class against the validation images
eval_pipeline = [
    dict(type='medic_mm.LoadReadableImage'),
    dict(
        type='ResizeEdge',
        scale=256,
        edge='short',
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
knn_dataloader = dict(
    batch_size=256,
    num_workers=8,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
)
custom_hooks = [
    dict(type='medic_mm.SkippedImagesHook'),
    dict(type='medic_mm.StopOnNaNHook'),
    dict(
        type='medic_mm.KNNHook',
        interval=10,
        k=(10, 20),
        train_dataloader=dict(
            **knn_dataloader,
            dataset=dict(
                type='medic_mm.ImageFolder',
                data_root=data_root,
                data_prefix='train',
                with_label=True,
                per_class=50,
                pipeline=eval_pipeline,
            ),
        ),
        test_dataloader=dict(
            **knn_dataloader,
            dataset=dict(
                type='ImageNet',
                data_root=data_root,
                split='val',
                pipeline=eval_pipeline,
            ),
        ),
    ),
]
