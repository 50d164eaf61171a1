# ImageNet-1K for linear probes, 512 images a GPU: crop and flip.
_base_ = './imagenet_bs128_finetune.py'

train_pipeline = [
    dict(type='medic_mm.LoadReadableImage'),
    dict(
        type='RandomResizedCrop',
        scale=224,
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=512, dataset=dict(pipeline=train_pipeline))
