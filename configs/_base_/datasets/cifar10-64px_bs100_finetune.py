# CIFAR-10 as image folders, enlarged to 64 px, for fine-tuning: crop and flip.
data_root = 'data/cifar10/'
data_preprocessor = dict(
    type='ClsDataPreprocessor',
    num_classes=10,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
enlarge = dict(type='Resize', scale=64, backend='pillow', interpolation='bicubic')
train_pipeline = [
    dict(type='medic_mm.LoadReadableImage'),
    dict(
        type='RandomResizedCrop',
        scale=64,
        crop_ratio_range=(0.5, 1.0),
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='medic_mm.LoadReadableImage'),
    enlarge,
    dict(type='PackInputs'),
]
loader = dict(num_workers=2, collate_fn=dict(type='default_collate'))
labelled = dict(
    type='medic_mm.ImageFolder',
    data_root=data_root,
    data_prefix='train',
    with_label=True,
    pipeline=test_pipeline,
)
train_dataloader = dict(
    **loader,
    batch_size=100,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(labelled, pipeline=train_pipeline),
)
val_dataloader = dict(
    **loader,
    batch_size=250,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(labelled, data_prefix='val'),
)
val_cfg = dict()
val_evaluator = dict(type='Accuracy', topk=(1,))
test_dataloader = val_dataloader
test_cfg = dict()
test_evaluator = val_evaluator
