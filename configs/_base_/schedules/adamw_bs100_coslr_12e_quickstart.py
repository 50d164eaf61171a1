# AdamW for the quickstart, batch 100: chosen on its data, not from a paper.
_base_ = './adamw_bs100_coslr_12e_cifar10.py'

optim_wrapper = dict(optimizer=dict(lr=2e-3, betas=(0.9, 0.999)))
