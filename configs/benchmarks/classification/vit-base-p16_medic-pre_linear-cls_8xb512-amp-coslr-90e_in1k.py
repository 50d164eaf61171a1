# Linear probe of a MEDiC student, ViT-B/16: class token.
_base_ = [
    '../../_base_/models/linear_vit-base-p16.py',
    '../../_base_/datasets/imagenet_bs512_linear.py',
    '../../_base_/schedules/linear_lars_bs4096_90e.py',
    '../../_base_/benchmark_runtime.py',
]

model = dict(backbone=dict(layer_scale_init_value=0.1))
