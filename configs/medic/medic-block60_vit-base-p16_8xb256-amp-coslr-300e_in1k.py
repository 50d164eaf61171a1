# Mask table: blocks, 60 %.
_base_ = './medic_vit-base-p16_8xb256-amp-coslr-300e_in1k.py'

train_pipeline = _base_.train_pipeline
train_pipeline[-2] = dict(type='medic_mm.BlockMask', grid=14, mask_ratio=0.60)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
