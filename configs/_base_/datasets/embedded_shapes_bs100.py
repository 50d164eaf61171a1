# The built-in data set: made on the fly, no files. k-NN on other images of it.
data_preprocessor = dict(
    type='medic_mm.HostSamplesPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
train_dataloader = dict(
    batch_size=100,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='medic_mm.EmbeddedShapes',
        split='train',
        length=5000,
        pipeline=[
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ],
    ),
)

knn_dataloader = dict(batch_size=250, num_workers=0)
labelled = dict(
    type='medic_mm.EmbeddedShapes',
    split='train',
    length=2000,
    seed=2,
    pipeline=[dict(type='PackInputs')],
)
custom_hooks = [
    dict(type='medic_mm.StopOnNaNHook'),
    dict(
        type='medic_mm.KNNHook',
        interval=2,
        k=(20,),
        train_dataloader=dict(**knn_dataloader, dataset=labelled),
        test_dataloader=dict(
            **knn_dataloader, dataset=dict(labelled, split='val', length=1000)
        ),
    ),
]
