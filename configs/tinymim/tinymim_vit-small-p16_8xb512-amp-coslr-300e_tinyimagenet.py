# TinyMIM, ViT-S/16, 300 epochs of TinyImageNet.
_base_ = [
    '../_base_/models/tinymim_vit-small-p16.py',
    '../_base_/datasets/tiny_imagenet_bs320_mimhd.py',
    '../_base_/schedules/adamw_bs4096_coslr_300e.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(batch_size=512)
