# Settings of every experiment: the plug-in, logging, checkpoints.
custom_imports = dict(imports=['glean_ext.plugin'])
default_scope = 'mmagic'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100, log_metric_by_epoch=False),  # log metrics by iteration
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook', interval=5000, by_epoch=False, max_keep_ckpts=3, save_best='PSNR', rule='greater',
        backend_args=dict(backend='atomic')),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
custom_hooks = [
    dict(type='FrozenBankHook', interval=5000),
    dict(type='ComparisonHook'),
    # What is validated and saved is an average of the weights over about 1000 iterations, as of GFPGAN and Real-ESRGAN.
    dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=1e-3),
]

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
# All parameters that are trained get a gradient, since the unused parts of the bank are frozen.
model_wrapper_cfg = dict(type='MMSeparateDistributedDataParallel', find_unused_parameters=False)

log_level = 'INFO'
log_processor = dict(type='LogProcessor', window_size=100, by_epoch=False)
load_from = None
resume = False
