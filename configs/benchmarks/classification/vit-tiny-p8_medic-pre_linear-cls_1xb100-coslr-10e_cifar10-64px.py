# Linear probe of the MEDiC student of laptop size on CIFAR-10: class token.
#
# Without augmentation, tools/linear_probe.py does the same in a tenth of the time.
_base_ = [
    '../../_base_/models/linear_vit-tiny-p8-64px.py',
    '../../_base_/datasets/cifar10-64px_bs100_finetune.py',
    '../../_base_/schedules/linear_cifar10_bs100_10e.py',
    '../../_base_/benchmark_runtime.py',
]

model = dict(backbone=dict(layer_scale_init_value=0.1))
