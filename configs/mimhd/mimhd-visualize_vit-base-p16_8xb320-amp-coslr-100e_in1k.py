# "Raw pixel" taken literally: the MAE whose decoder predicts pixels that are not
# normalised per patch. Encoder and decoder come from the same file: the two official
# kinds of file are different trainings.
_base_ = './mimhd_vit-base-p16_8xb320-amp-coslr-100e_in1k.py'

model = dict(
    head=dict(pixel_loss=dict(norm_pix=False)),
    target_generator=dict(weights='data/teachers/mae_visualize_vit_large.pth'),
)
