# One's own images: every image under `data_root`, sub-folders included, no labels.
# Unreadable files are skipped, counted and named in the log.
_base_ = './imagenet_bs256_medic.py'

data_root = 'data/images/'
train_dataloader = dict(dataset=dict(data_root=data_root, data_prefix=''))
# without labels there is no k-NN; see docs/own_data.md for adding a labelled subset
custom_hooks = [
    dict(type='medic_mm.SkippedImagesHook'),
    dict(type='medic_mm.StopOnNaNHook'),
]
