# TinyMIM, ViT-B/16, 100 epochs of ImageNet-1K, as in TinyMIM's ablations.
_base_ = [
    '../_base_/models/tinymim_vit-base-p16.py',
    '../_base_/datasets/imagenet_bs320_mimhd.py',
    '../_base_/schedules/adamw_bs4096_coslr_100e.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(batch_size=512)
