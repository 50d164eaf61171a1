# The chain L -> B -> S -> Ti: ViT-S from the ViT-B that TinyMIM made before.
#
# Which block of this teacher the authors distil is not known here. Block 9 of 12 is as
# deep as 18 of 24, and its 12 heads are the ones it was trained with; those of the
# last block are not.
_base_ = './tinymim_vit-small-p16_8xb512-amp-coslr-300e_in1k.py'

model = dict(
    backbone=dict(block_heads=12),
    head=dict(student_heads=12, teacher_heads=12),
    target_generator=dict(
        arch='base',
        block=9,
        weights='work_dirs/tinymim_vit-base-p16_8xb512-amp-coslr-300e_in1k/epoch_300.pth',
    ),
)
