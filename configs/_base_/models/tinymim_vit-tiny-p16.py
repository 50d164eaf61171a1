# TinyMIM, ViT-Ti/16 student: 192 wide, 16 heads in the last block and 3 in the others.
_base_ = './tinymim_vit-base-p16.py'

model = dict(backbone=dict(arch='deit-tiny'))
