# CIFAR-10 as image folders, `train/<class>/*` and `val/<class>/*`, enlarged to 64 px.
#
# One fixed view an image (the whole of it), so that the teacher sees each image once:
# its outputs are cached on disk before the first step. Masks are drawn anew each time.
data_root = 'data/cifar10/'
data_preprocessor = dict(
    type='medic_mm.HostSamplesPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
enlarge = dict(type='Resize', scale=64, backend='pillow', interpolation='bicubic')
train_pipeline = [
    dict(type='medic_mm.LoadReadableImage'),
    dict(type='medic_mm.FixedView', transforms=[enlarge], num_views=1, seed=0),
    dict(type='medic_mm.RandomMask', grid=8, mask_ratio=0.40),
    dict(type='PackInputs', meta_keys=('sample_idx', 'view', 'img_path')),
]
eval_pipeline = [
    dict(type='medic_mm.LoadReadableImage'),
    enlarge,
    dict(type='PackInputs'),
]
labelled = dict(
    type='medic_mm.ImageFolder',
    data_root=data_root,
    data_prefix='train',
    with_label=True,
    pipeline=eval_pipeline,
)
loader = dict(num_workers=2, collate_fn=dict(type='default_collate'))
train_dataloader = dict(
    **loader,
    batch_size=100,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(labelled, pipeline=train_pipeline),
)
knn_dataloader = dict(
    **loader, batch_size=250, sampler=dict(type='DefaultSampler', shuffle=False)
)
custom_hooks = [
    dict(type='medic_mm.SkippedImagesHook'),
    dict(type='medic_mm.StopOnNaNHook'),
    dict(type='medic_mm.TeacherCacheHook'),
    dict(
        type='medic_mm.KNNHook',
        interval=4,
        k=(20,),
        train_dataloader=dict(**knn_dataloader, dataset=labelled),
        test_dataloader=dict(
            **knn_dataloader, dataset=dict(labelled, data_prefix='val')
        ),
    ),
]
