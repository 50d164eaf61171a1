# Linear probe of ViT-B/16: the backbone is frozen; BatchNorm without weights and a
# linear classifier on the class token (MAE's protocol).
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VisionTransformer',
        arch='base',
        img_size=224,
        patch_size=16,
        frozen_stages=12,
        out_type='raw',
        final_norm=True,
        layer_scale_init_value=0.0,
        init_cfg=dict(type='Pretrained', checkpoint=None, prefix='backbone.'),
    ),
    neck=dict(type='medic_mm.ProbeNeck', embed_dims=768, features=('cls',)),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(type='CrossEntropyLoss'),
        init_cfg=[dict(type='TruncNormal', layer='Linear', std=0.01)],
    ),
)
