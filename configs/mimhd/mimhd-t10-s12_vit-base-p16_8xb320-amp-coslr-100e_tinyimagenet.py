# Table 4: block 10 of the teacher, block 12 of the student.
_base_ = './mimhd_vit-base-p16_8xb320-amp-coslr-100e_tinyimagenet.py'

model = dict(student_block=12, target_generator=dict(block=10))
