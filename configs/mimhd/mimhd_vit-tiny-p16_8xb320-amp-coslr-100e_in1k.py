# MIM-HD, ViT-Ti/16 from MAE ViT-L/16: 100 epochs of ImageNet-1K.
_base_ = [
    '../_base_/models/mimhd_vit-tiny-p16.py',
    '../_base_/datasets/imagenet_bs320_mimhd.py',
    '../_base_/schedules/adamw_bs2560_coslr_100e.py',
    '../_base_/default_runtime.py',
]
