# UperNet at laptop size: the student of 64 px images on larger ones, stride 8.
#
# BN in place of SyncBN, so that it also runs on a CPU by the host's own tools.
_base_ = './upernet_vit-base-p16.py'

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=192,
            num_layers=6,
            num_heads=3,
            feedforward_channels=768,
        ),
        img_size=(176, 240),
        patch_size=8,
        out_indices=[1, 2, 3, 5],
        drop_path_rate=0.0,
    ),
    neck=dict(embed_dim=192, rescales=[2, 1, 0.5, 0.25], norm_cfg=norm_cfg),
    decode_head=dict(in_channels=[192, 192, 192, 192], channels=64, norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=192, channels=64, norm_cfg=norm_cfg),
    test_cfg=dict(_delete_=True, mode='whole'),
)
