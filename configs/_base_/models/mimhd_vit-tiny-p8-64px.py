# MIM-HD at laptop size: 64 px images in 8x8 patches, a student of 6 blocks and 3 heads,
# a teacher of 6 blocks and 8 heads that configs/mae trains first.
_base_ = './mimhd_vit-base-p16.py'

model = dict(
    student_block=6,
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
    neck=dict(embed_dims=192, teacher_dims=256, decoder_dims=128),
    head=dict(
        student_heads=3,
        teacher_heads=8,
        num_tokens=65,
        pixel_loss=dict(patch_size=8),
    ),
    target_generator=dict(
        arch=dict(
            _delete_=True,
            embed_dims=256,
            num_layers=6,
            num_heads=8,
            feedforward_channels=1024,
        ),
        block=5,
        input_size=64,
        patch_size=8,
        weights='work_dirs/mae_vit-w256-d6-h8-p8_1xb100-coslr-20e_cifar10-64px/epoch_20.pth',
        decoder=dict(embed_dims=128, depth=2, num_heads=4),
        norm_pix=True,
    ),
)
