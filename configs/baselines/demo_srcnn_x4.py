# 16x16 -> 64x64 cartoon faces by MMagic's SRCNN, for comparison with GLEAN: the MSE alone, as in its paper.
_base_ = ['../_base_/runtime.py', '../_base_/schedule_300k.py', '../_base_/data_demo.py']

model = dict(
    type='BaseEditModel',
    generator=dict(type='SRCNNNet', channels=(3, 64, 32, 3), kernel_sizes=(9, 1, 5), upscale_factor=4),
    pixel_loss=dict(type='MSELoss', loss_weight=1.0, reduction='mean'),
    data_preprocessor=dict(type='DataPreprocessor', mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
)
train_dataloader = dict(dataset=dict(scale=4))
val_dataloader = dict(dataset=dict(scale=4))
test_dataloader = val_dataloader

train_cfg = dict(max_iters=500, val_interval=250)
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3, betas=(0.9, 0.99), fused=True))
param_scheduler = dict(T_max=500)
randomness = dict(seed=0)
env_cfg = dict(dist_cfg=dict(backend='gloo'))
default_hooks = dict(checkpoint=dict(interval=250), logger=dict(interval=50))
custom_hooks = [
    dict(type='ComparisonHook'),
    dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=1e-2),
]
