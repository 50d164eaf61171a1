# Fine-tuning of a MIM-HD or TinyMIM student, ViT-Ti/16: 200 epochs, batch 2048.
_base_ = [
    '../../_base_/models/classifier_vit-base-p16.py',
    '../../_base_/datasets/imagenet_bs128_finetune.py',
    '../../_base_/schedules/finetune_mimhd_bs2048_200e.py',
    '../../_base_/benchmark_runtime.py',
]

model = dict(
    backbone=dict(arch='deit-tiny', drop_path_rate=0.1),
    head=dict(in_channels=192),
)
train_dataloader = dict(batch_size=256)
