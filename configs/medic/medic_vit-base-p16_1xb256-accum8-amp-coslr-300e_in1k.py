# One GPU: 8 steps of 256 images before each update, so the same total batch of 2048.
_base_ = './medic_vit-base-p16_8xb256-amp-coslr-300e_in1k.py'

optim_wrapper = dict(accumulative_counts=8)
