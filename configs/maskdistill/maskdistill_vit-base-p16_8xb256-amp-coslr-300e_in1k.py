# MaskDistill, the token-only baseline: dense encoding with shared relative position
# bias (the host's BEiT), smooth L1 at masked positions, block masks of 40 %. As in the
# released re-implementation there is no absolute position embedding. The checkpoint is
# fine-tuned by configs/benchmarks/classification/beit-base-p16_medic-pre_*.
_base_ = [
    '../_base_/models/medic_vit-base-p16.py',
    '../_base_/datasets/imagenet_bs256_medic.py',
    '../_base_/schedules/adamw_bs2048_coslr_300e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='BEiTPretrainViT',
        arch='base',
        img_size=224,
        patch_size=16,
        drop_path_rate=0.1,
        layer_scale_init_value=0.1,
        out_type='raw',
        init_cfg=[
            dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
            dict(type='TruncNormal', layer='Conv2d', std=0.02, bias=0.0),
            dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
        ],
    ),
    neck=None,
    head=dict(weights=dict(cls=0.0, pixel=0.0)),
)
