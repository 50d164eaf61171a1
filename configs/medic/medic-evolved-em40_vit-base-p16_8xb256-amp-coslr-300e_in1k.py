# Mask table: evolved masks, clusters by EM, 40 %, the ratio of the block masks.
_base_ = './medic-evolved-em75_vit-base-p16_8xb256-amp-coslr-300e_in1k.py'

model = dict(masking=dict(mask_ratio=0.40))
