# TinyMIM, ViT-S/16 student: 384 wide, 16 heads in the last block and 6 in the others.
_base_ = './tinymim_vit-base-p16.py'

model = dict(backbone=dict(arch='deit-small'))
