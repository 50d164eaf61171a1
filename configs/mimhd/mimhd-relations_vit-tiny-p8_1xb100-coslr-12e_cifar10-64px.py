# Relations alone.
_base_ = './mimhd_vit-tiny-p8_1xb100-coslr-12e_cifar10-64px.py'

model = dict(
    neck=None,
    head=dict(weights=dict(pixel=0.0), pixel_loss=None),
    target_generator=dict(decoder=None),
)
# the last block's output projection and MLP get no gradient
find_unused_parameters = True
