# Linear probe of a MEDiC student, ViT-B/16: class token beside mean patch token.
_base_ = './vit-base-p16_medic-pre_linear-cls_8xb512-amp-coslr-90e_in1k.py'

model = dict(neck=dict(features=('cls', 'mean')), head=dict(in_channels=1536))
