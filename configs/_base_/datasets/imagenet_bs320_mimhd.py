# ImageNet-1K for MIM-HD and TinyMIM: whole images, crop and flip, 320 a GPU.
#
# Student and teacher see the same view. The released TinyMIM code jitters the colours
# of the student's copy alone; MIM-HD reconstructs that copy and says nothing of it, so
# there is no jitter here.
_base_ = './imagenet_bs256_medic.py'

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
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=320, dataset=dict(pipeline=train_pipeline))
