# Fine-tuning of a student with relative positions (MaskDistill, MEDiC's dense-rpb), as
# the released script does it: each block starts from a copy of the shared table.
_base_ = './vit-base-p16_medic-pre_8xb128-amp-coslr-100e_in1k.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='BEiTViT',
        arch='base',
        img_size=224,
        patch_size=16,
        out_type='cls_token',
        final_norm=True,
        use_rel_pos_bias=True,
        use_shared_rel_pos_bias=False,
        drop_path_rate=0.1,
        layer_scale_init_value=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=None, prefix='backbone.'),
    ),
)
