# Table 4: block 18 of the teacher, block 9 of the student.
_base_ = './mimhd_vit-base-p16_8xb320-amp-coslr-100e_tinyimagenet.py'

model = dict(student_block=9, target_generator=dict(block=18))
