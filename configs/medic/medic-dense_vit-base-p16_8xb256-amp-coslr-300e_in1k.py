# Dense encoding: mask tokens in the encoder, token loss at masked positions. The
# decoder gets the encoder's tokens of all positions.
_base_ = './medic_vit-base-p16_8xb256-amp-coslr-300e_in1k.py'

model = dict(backbone=dict(encoding='dense'))
