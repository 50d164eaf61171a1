# W balanced over teacher heads.
_base_ = './mimhd_vit-tiny-p8_1xb100-coslr-12e_cifar10-64px.py'

model = dict(head=dict(matching=dict(balance='sinkhorn', temperature=0.1)))
