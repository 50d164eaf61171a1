# Two GPUs: 4 steps of 2 x 256 images before each update, total batch 2048.
_base_ = './medic_vit-base-p16_8xb256-amp-coslr-300e_in1k.py'

optim_wrapper = dict(accumulative_counts=4)
