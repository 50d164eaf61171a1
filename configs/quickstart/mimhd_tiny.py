# MIM-HD on the built-in data set: minutes on two CPU cores, no download.
#
# `bash tools/quickstart.sh --method mimhd` trains the teacher first (`teacher_config`),
# and then this config. Sizes, schedule and learning rate were chosen for that, they are
# not from a paper.
_base_ = [
    '../_base_/models/mimhd_vit-tiny-p8-64px.py',
    '../_base_/datasets/embedded_shapes_bs100.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/adamw_bs100_coslr_12e_quickstart.py',
]

# the teacher: trained by the quickstart, from a config beside this one
teacher_config = 'mae_tiny.py'

model = dict(
    student_block=4,
    backbone=dict(
        arch=dict(embed_dims=128, num_layers=4, num_heads=4, feedforward_channels=512),
    ),
    neck=dict(embed_dims=128, teacher_dims=192, decoder_dims=64),
    head=dict(student_heads=4),
    target_generator=dict(
        arch=dict(embed_dims=192, num_layers=4, num_heads=8, feedforward_channels=768),
        block=3,
        weights='work_dirs/quickstart-mimhd/teacher/epoch_20.pth',
        decoder=dict(embed_dims=64, depth=1, num_heads=4),
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
                dict(type='PackInputs'),
            ],
        ),
    ),
]
