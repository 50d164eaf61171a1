# MEDiC on the built-in data set: minutes on two CPU cores, no download.
#
# `bash tools/quickstart.sh` trains the teacher named here first, and then this config.
# Sizes, schedule and learning rate were chosen for that, they are not from a paper.
_base_ = [
    '../_base_/models/medic_vit-tiny-p8-64px.py',
    '../_base_/datasets/embedded_shapes_bs100.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/adamw_bs100_coslr_12e_quickstart.py',
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

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='RandomFlip', prob=0.5),
            dict(type='medic_mm.BlockMask', grid=8, mask_ratio=0.40, min_area=4),
            dict(type='PackInputs'),
        ],
    ),
)
default_hooks = dict(
    logger=dict(interval=25), checkpoint=dict(interval=1, max_keep_ckpts=1)
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='medic_mm.PanelHook',
        interval=6,
        dataset=dict(
            _base_.labelled,
            split='val',
            length=1000,
            pipeline=[
                dict(type='medic_mm.BlockMask', grid=8, mask_ratio=0.40, min_area=4),
                dict(type='PackInputs'),
            ],
        ),
    ),
]
