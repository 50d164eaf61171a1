# Mask table: random, 75 %.
_base_ = './medic_vit-tiny-p8_1xb100-coslr-20e_cifar10-64px.py'

train_pipeline = _base_.train_pipeline
train_pipeline[-2] = dict(type='medic_mm.RandomMask', grid=8, mask_ratio=0.75)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
