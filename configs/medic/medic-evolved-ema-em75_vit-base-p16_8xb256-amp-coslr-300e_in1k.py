# Mask table: evolved masks, 75 %, from the student's own attention: its moving average,
# all blocks and heads summed. That is the way of Evolved Part Masking, which has no
# teacher, and a choice in the released MEDiC code, whose momentum this is (EPM has
# 0.99996). It costs one more pass of the backbone, without gradients.
_base_ = './medic-evolved-em75_vit-base-p16_8xb256-amp-coslr-300e_in1k.py'

model = dict(masking=dict(source='student_ema', momentum=0.9999))
