# Mask table: blocks, 40 %. The least block has 4 of 64 patches; 16 of 196 in ViT-B's.
_base_ = './medic_vit-tiny-p8_1xb100-coslr-20e_cifar10-64px.py'

train_pipeline = _base_.train_pipeline
train_pipeline[-2] = dict(
    type='medic_mm.BlockMask', grid=8, mask_ratio=0.40, min_area=4
)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
