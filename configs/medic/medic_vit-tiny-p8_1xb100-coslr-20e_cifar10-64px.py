# MEDiC on CIFAR-10 with a real ViT-S/14 teacher, on a CPU.
#
# Both grids are 8x8: the student has 64 px in patches of 8, the teacher 112 px in
# patches of 14. Data and teacher are not in the repository: see README.md beside this
# file. Learning rate and schedule were chosen on this data, they are not from a paper.
_base_ = [
    '../_base_/models/medic_vit-tiny-p8-64px.py',
    '../_base_/datasets/cifar10-64px_bs100_medic.py',
    '../_base_/default_runtime.py',
]

model = dict(
    head=dict(target_dims=384),
    target_generator=dict(
        _delete_=True,
        type='medic_mm.CachedTeacher',
        cache_dir='work_dirs/teacher_cache',
        teacher=dict(
            type='medic_mm.TimmTeacher',
            model='vit_small_patch14_dinov2',
            weights='data/teachers/vits14.safetensors',
            input_size=112,
            norm=True,
        ),
    ),
)

max_epochs = 20
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
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
auto_scale_lr = dict(base_batch_size=100)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=5))
