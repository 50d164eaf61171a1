# Fine-tuning of a MEDiC student, ViT-B/16: class token, LayerScale as in pre-training.
_base_ = [
    '../../_base_/models/classifier_vit-base-p16.py',
    '../../_base_/datasets/imagenet_bs128_finetune.py',
    '../../_base_/schedules/finetune_medic_bs1024_100e.py',
    '../../_base_/benchmark_runtime.py',
]

model = dict(
    backbone=dict(
        out_type='cls_token',
        final_norm=True,
        drop_path_rate=0.1,
        layer_scale_init_value=0.1,
    ),
)
