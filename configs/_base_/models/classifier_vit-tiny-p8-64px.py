# The student of laptop size: 64 px images in 8x8 patches, 192 wide, 6 blocks, 3 heads.
_base_ = './classifier_vit-base-p16.py'

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
    head=dict(num_classes=10, in_channels=192),
    # ten epochs are too few for mixed images
    train_cfg=None,
)
