# 8x8 -> 64x64 cartoon faces, without a network connection, in a few minutes on two CPU cores.
_base_ = [
    '_base_/runtime.py',
    '_base_/schedule_300k.py',
    '_base_/glean.py',
    '_base_/data_demo.py',
    '_base_/bank_demo.py',
]

model = dict(
    generator=dict(
        in_size=8,
        out_size=64,
        trunk='residual',  # this, global_skip and warm_start are not in the paper: short trainings gain much from them
        rrdb_channels=48,
        num_rrdbs=10,
        global_skip=True,
        warm_start=True,
        init_cfg=_base_.bank,
        **_base_.bank_sizes),
    discriminator=dict(in_size=64, init_cfg=_base_.bank_discriminator, **_base_.bank_widths),
    perceptual_loss=None,  # VGG's weights would have to be downloaded
    gan_loss=dict(loss_weight=1e-3),  # the paper's 1e-2 is four times the MSE on these flat pictures and adds speckle
)
train_dataloader = dict(dataset=dict(scale=8))
val_dataloader = dict(dataset=dict(scale=8))
test_dataloader = val_dataloader

train_cfg = dict(max_iters=500, val_interval=250)
optim_wrapper = dict(
    generator=dict(type='MixedPrecisionOptimWrapper', dtype='auto', optimizer=dict(lr=1e-3)),
    discriminator=dict(type='MixedPrecisionOptimWrapper', dtype='auto', optimizer=dict(lr=5e-4)),
)
param_scheduler = dict(T_max=500)
randomness = dict(seed=0)
env_cfg = dict(dist_cfg=dict(backend='gloo'))
default_hooks = dict(checkpoint=dict(interval=250), logger=dict(interval=50))
custom_hooks = [
    dict(type='FrozenBankHook', interval=500),
    dict(type='ComparisonHook'),
    dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=1e-2),
]
