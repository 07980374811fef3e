"""Runtime of every classification config: hooks, logging, checkpoints, environment."""

default_scope = 'mmpretrain'
runner_type = 'evamm.EVARunner'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='evamm.CheckpointHook', interval=1, max_keep_ckpts=3, save_best='auto'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    runtime_info=dict(type='evamm.RuntimeInfoHook'),
    throughput=dict(type='evamm.ThroughputHook'),
    visualization=dict(type='VisualizationHook', enable=False),
)

env_cfg = dict(
    cudnn_benchmark=False,
    # OpenCV's own threads in every loader worker slow each other down.
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)

log_processor = dict(window_size=100)
log_level = 'INFO'
visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])

randomness = dict(seed=0, deterministic=False)
load_from = None
resume = False
