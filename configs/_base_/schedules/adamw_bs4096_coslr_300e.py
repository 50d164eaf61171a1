# TinyMIM: AdamW, 300 epochs, 15 of warm-up, cosine to 0, total batch 4096, 1.5e-4 for
# 256 images (its released code).
_base_ = './adamw_bs2560_coslr_100e.py'

optim_wrapper = dict(optimizer=dict(lr=2.4e-3))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        by_epoch=True,
        begin=0,
        end=15,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        by_epoch=True,
        begin=15,
        end=300,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=300)
auto_scale_lr = dict(base_batch_size=4096)
