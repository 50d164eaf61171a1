# Fine-tuning of a MIM-HD, TinyMIM or MAE student, ViT-B/16: mean patch token.
#
# Drop path 0.2 is TinyMIM's; MAE's own script has 0.1.
_base_ = [
    '../../_base_/models/classifier_vit-base-p16.py',
    '../../_base_/datasets/imagenet_bs128_finetune.py',
    '../../_base_/schedules/finetune_mimhd_bs1024_100e.py',
    '../../_base_/benchmark_runtime.py',
]

model = dict(backbone=dict(drop_path_rate=0.2))
