# What every pre-training config shares.
default_scope = 'mmpretrain'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # writes to a temporary file first, so that a kill never leaves half a checkpoint
    checkpoint=dict(
        type='medic_mm.AtomicCheckpointHook', interval=10, max_keep_ckpts=3
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # refuses weights that do not fit, where OpenMMLab only warns
    weights=dict(type='medic_mm.StrictWeightsHook'),
)

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='Visualizer', vis_backends=vis_backends)
# the host shows means over the window for losses and times only, and single steps for
# the rest; here what stands beside a loss is its mean as well
log_processor = dict(
    type='LogProcessor',
    window_size=20,
    by_epoch=True,
    mean_pattern=r'.*(loss|time|grad_norm|raw_|std_|cos_|entropy_|used_heads_).*',
)
log_level = 'INFO'

load_from = None
resume = False
randomness = dict(seed=0, diff_rank_seed=True)
