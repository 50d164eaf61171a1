# Mask table: evolved masks, hierarchical clusters, 40 %, the ratio of the block masks.
_base_ = './medic-evolved-hc75_vit-tiny-p8_1xb100-coslr-20e_cifar10-64px.py'

model = dict(masking=dict(mask_ratio=0.40))
