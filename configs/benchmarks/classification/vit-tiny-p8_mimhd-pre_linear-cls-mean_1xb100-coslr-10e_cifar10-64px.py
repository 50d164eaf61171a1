# Linear probe of the MIM-HD student of laptop size: class token beside mean patch
# token.
_base_ = './vit-tiny-p8_mimhd-pre_linear-cls_1xb100-coslr-10e_cifar10-64px.py'

model = dict(neck=dict(features=('cls', 'mean')), head=dict(in_channels=384))
