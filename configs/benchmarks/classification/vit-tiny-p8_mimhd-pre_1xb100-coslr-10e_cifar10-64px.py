# Fine-tuning of the MIM-HD student of laptop size on CIFAR-10: mean patch token.
_base_ = [
    '../../_base_/models/classifier_vit-tiny-p8-64px.py',
    '../../_base_/datasets/cifar10-64px_bs100_finetune.py',
    '../../_base_/schedules/finetune_cifar10_bs100_10e.py',
    '../../_base_/benchmark_runtime.py',
]
