# Fine-tuning as TinyMIM does it, whose protocol MIM-HD names: AdamW 2e-3 at batch 1024
# (5e-4 for 256), layer decay 0.65, 5 of 100 epochs of warm-up.
_base_ = './finetune_medic_bs1024_100e.py'

optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,
        by_epoch=True,
        begin=0,
        end=5,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=5e-4,
        by_epoch=True,
        begin=5,
        end=100,
        convert_to_iter_based=True,
    ),
]
