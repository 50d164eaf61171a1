# UperNet on ADE20K with a student with relative positions (MaskDistill, MEDiC's
# dense-rpb): a table per block, resized from 14x14 to 32x32 patches.
#
# BEiTViT takes images of one size only, so that smaller ones (a scale of --tta, a very
# oblong image) are padded to it.
_base_ = './vit-base-p16_medic-pre_upernet_8xb2-amp-160k_ade20k-512x512.py'

model = dict(
    data_preprocessor=dict(test_cfg=dict(size=(512, 512))),
    backbone=dict(
        _delete_=True,
        type='mmpretrain.BEiTViT',
        arch='base',
        img_size=512,
        patch_size=16,
        out_type='featmap',
        out_indices=[3, 5, 7, 11],
        final_norm=False,
        use_rel_pos_bias=True,
        use_shared_rel_pos_bias=False,
        drop_path_rate=0.1,
        layer_scale_init_value=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=None, prefix='backbone.'),
    ),
)
