# MEDiC at laptop size: 64 px images in 8x8 patches, a student of 6 blocks. The config
# that inherits this one names the teacher, whose grid must be 8x8 as well.
_base_ = './medic_vit-base-p16.py'

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=192,
            num_layers=6,
            num_heads=3,
            feedforward_channels=768,
        ),
        img_size=64,
        patch_size=8,
        drop_path_rate=0.0,
    ),
    neck=dict(
        num_patches=64,
        patch_size=8,
        embed_dim=192,
        decoder_embed_dim=96,
        decoder_depth=2,
        decoder_num_heads=3,
    ),
    head=dict(embed_dims=192, pixel_loss=dict(patch_size=8)),
)
