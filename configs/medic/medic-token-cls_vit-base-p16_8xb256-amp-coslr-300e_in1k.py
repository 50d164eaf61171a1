# Loss table: token distillation and CLS alignment.
_base_ = './medic_vit-base-p16_8xb256-amp-coslr-300e_in1k.py'

model = dict(head=dict(weights=dict(pixel=0.0)))
