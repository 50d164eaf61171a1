# TinyMIM (arXiv 2301.01296), ViT-B/16 student, MAE ViT-L/16 teacher: relations alone,
# head by head, the student's last block with the teacher's number of heads.
_base_ = './mimhd_vit-base-p16.py'

model = dict(
    backbone=dict(
        block_heads=16,
        # 0.1 in every block but the last, as in the released code
        constant_drop_path=True,
    ),
    neck=None,
    head=dict(
        student_heads=16,
        matching=dict(_delete_=True, type='medic_mm.OneToOneMatching'),
        weights=dict(_delete_=True, qk=1.0, vv=1.0, pixel=0.0),
        pixel_loss=None,
    ),
    target_generator=dict(
        # no decoder is needed; with it, a file of encoder and decoder loads as well
        weights='data/teachers/mae_pretrain_vit_large.pth',
        decoder=None,
    ),
)
# the last block's output projection and MLP get no gradient
find_unused_parameters = True
