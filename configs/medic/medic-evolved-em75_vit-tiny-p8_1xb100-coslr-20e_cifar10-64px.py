# Mask table: evolved masks, clusters by EM, 75 %, from the teacher's cached attention.
#
# The released schedule, 40 to 10 clusters, makes parts of 5 to 20 patches of a 14x14
# grid. On an 8x8 grid 16 to 4 clusters make parts of 4 to 16; 40 would have 1.6 each.
_base_ = './medic_vit-tiny-p8_1xb100-coslr-20e_cifar10-64px.py'

model = dict(
    target_generator=dict(attention=True),
    masking=dict(
        type='medic_mm.EvolvedMasking',
        source='teacher',
        mask_ratio=0.75,
        method='em',
        schedule=dict(gamma=0.2, clusters=(16, 4), spread=2),
    ),
)
# the same without its mask transform
train_pipeline = _base_.train_pipeline[:-2] + _base_.train_pipeline[-1:]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
