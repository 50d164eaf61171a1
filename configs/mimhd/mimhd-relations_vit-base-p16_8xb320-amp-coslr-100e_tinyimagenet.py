# Table 3: head-adaptive relations alone, no dual-view decoding.
_base_ = './mimhd_vit-base-p16_8xb320-amp-coslr-100e_tinyimagenet.py'

model = dict(
    neck=None,
    head=dict(weights=dict(pixel=0.0), pixel_loss=None),
    target_generator=dict(decoder=None),
)
# the last block's output projection and MLP get no gradient
find_unused_parameters = True
