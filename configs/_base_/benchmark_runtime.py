# What benchmarks of classification share: pre-trained weights are loaded strictly, and
# the classes of data, head and checkpoint are compared before the first step.
_base_ = './default_runtime.py'

default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=1, save_best='auto'),
)
custom_hooks = [
    dict(type='medic_mm.PretrainedBackboneHook'),
    dict(type='medic_mm.ClassesHook'),
    dict(type='medic_mm.StopOnNaNHook'),
]
log_processor = dict(_delete_=True, type='LogProcessor', window_size=20)
