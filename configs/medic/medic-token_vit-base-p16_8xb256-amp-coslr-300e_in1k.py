# Loss table: token distillation only.
_base_ = './medic_vit-base-p16_8xb256-amp-coslr-300e_in1k.py'

model = dict(head=dict(weights=dict(cls=0.0, pixel=0.0)))
