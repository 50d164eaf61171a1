# MIM-HD on CIFAR-10, on a CPU, from the MAE of configs/mae.
_base_ = [
    '../_base_/models/mimhd_vit-tiny-p8-64px.py',
    '../_base_/datasets/cifar10-64px_bs100_crops.py',
    '../_base_/schedules/adamw_bs100_coslr_12e_cifar10.py',
    '../_base_/default_runtime.py',
]

default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=4))
