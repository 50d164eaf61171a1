# MIM-HD, ViT-B/16, 100 epochs of TinyImageNet: the setting of the paper's ablations.
_base_ = [
    '../_base_/models/mimhd_vit-base-p16.py',
    '../_base_/datasets/tiny_imagenet_bs320_mimhd.py',
    '../_base_/schedules/adamw_bs2560_coslr_100e.py',
    '../_base_/default_runtime.py',
]
