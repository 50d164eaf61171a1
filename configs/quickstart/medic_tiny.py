# MEDiC on the built-in data set: minutes on two CPU cores, no download.
#
# `bash tools/quickstart.sh` trains the teacher named here first, and then this config.
# Sizes, schedule and learning rate were chosen for that, they are not from a paper.
_base_ = [
    '../_base_/models/medic_vit-tiny-p8-64px.py',
    '../_base_/default_runtime.py',
]

# the teacher: a tiny CLIP in open_clip's own format, trained by the quickstart
clip = dict(
    model_cfg=dict(
        embed_dim=64,
        vision_cfg=dict(
            image_size=64,
            patch_size=8,
            width=96,
            layers=4,
            head_width=32,
            pos_embed_type='sin_cos_2d',
        ),
        # as many numbers as the captions have words, and two more
        text_cfg=dict(context_length=4, vocab_size=14, width=64, heads=2, layers=2),
    ),
    preprocess_cfg=dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
)
clip_recipe = dict(steps=600, batch_size=64, learning_rate=2e-3, warmup=50)
clip_dataset = dict(type='medic_mm.EmbeddedShapes', split='train', seed=1)

model = dict(
    backbone=dict(
        arch=dict(embed_dims=128, num_layers=4, num_heads=4, feedforward_channels=512),
    ),
    neck=dict(
        embed_dim=128, decoder_embed_dim=64, decoder_depth=1, decoder_num_heads=4
    ),
    head=dict(embed_dims=128, target_dims=96),
    target_generator=dict(
        _delete_=True,
        type='medic_mm.OpenCLIPTeacher',
        model=clip,
        weights='work_dirs/quickstart/teacher/open_clip_model.safetensors',
    ),
)

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
            dict(type='medic_mm.BlockMask', grid=8, mask_ratio=0.40, min_area=4),
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

max_epochs = 12
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='medic_mm.LayerDecayOptimWrapperConstructor',
    clip_grad=dict(max_norm=3.0),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-2,
        by_epoch=True,
        begin=0,
        end=1,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        by_epoch=True,
        begin=1,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs)
default_hooks = dict(
    logger=dict(interval=25), checkpoint=dict(interval=1, max_keep_ckpts=1)
)
