# What benchmarks of segmentation share: the host is mmseg, the backbone mmpretrain's.
_base_ = './default_runtime.py'

default_scope = 'mmseg'
custom_imports = dict(imports=['mmpretrain.models'], allow_failed_imports=False)
default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=16000, save_best='mIoU'),
)
custom_hooks = [
    dict(type='medic_mm.PretrainedBackboneHook'),
    dict(type='medic_mm.SegmentationLabelsHook'),
    dict(type='medic_mm.StopOnNaNHook'),
]
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(_delete_=True, type='SegLocalVisualizer', vis_backends=vis_backends)
log_processor = dict(_delete_=True, type='LogProcessor', window_size=50, by_epoch=False)
tta_model = dict(type='SegTTAModel')
