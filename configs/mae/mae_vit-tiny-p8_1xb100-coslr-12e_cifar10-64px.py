# The host's MAE with the student of the small MIM-HD configs: a row of their table.
_base_ = [
    '../_base_/models/mae_vit-tiny-p8-64px.py',
    '../_base_/datasets/cifar10-64px_bs100_crops.py',
    '../_base_/schedules/adamw_bs100_coslr_12e_cifar10.py',
    '../_base_/default_runtime.py',
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=4))
