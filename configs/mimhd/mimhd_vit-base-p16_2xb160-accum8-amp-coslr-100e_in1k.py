# Two GPUs: 8 steps of 2 x 160 images before each update, total batch 2560.
_base_ = './mimhd_vit-base-p16_8xb320-amp-coslr-100e_in1k.py'

train_dataloader = dict(batch_size=160)
optim_wrapper = dict(accumulative_counts=8)
