# Fine-tuning of the small sizes as TinyMIM's supplement is said to do it: 5e-3 at batch
# 2048, 200 epochs. We could not read that supplement: take it as a starting point.
_base_ = './finetune_mimhd_bs1024_100e.py'

optim_wrapper = dict(optimizer=dict(lr=5e-3))
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
        eta_min_ratio=2e-4,
        by_epoch=True,
        begin=5,
        end=200,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=200)
auto_scale_lr = dict(base_batch_size=2048)
