# StyleGAN2 (CVPR 2020), configuration f, by MMagic's trainer: non-saturating loss, R1 every 16th step, path lengths
# every 4th, an average of the generator with a half-life of 10,000 images. The average is the bank:
# init_cfg=dict(type='Pretrained', checkpoint=<iter_N.pth>, prefix='generator_ema').
_base_ = 'runtime.py'

_d_interval, _g_interval = 16, 4
_d_ratio, _g_ratio = _d_interval / (_d_interval + 1), _g_interval / (_g_interval + 1)  # for lazy regularisation

model = dict(
    type='StyleGAN2',
    data_preprocessor=dict(type='DataPreprocessor', mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    generator=dict(type='TrainableBank'),
    discriminator=dict(type='StyleGANv2Discriminator'),
    ema_config=dict(type='ExponentialMovingAverage', interval=1, momentum=1 - 0.5**(32 / 10_000)),
    loss_config=dict(
        r1_loss_weight=10 / 2 * _d_interval,
        r1_interval=_d_interval,
        norm_mode='HWC',
        g_reg_interval=_g_interval,
        g_reg_weight=2 * _g_interval,
        pl_batch_shrink=2),
)

train_pipeline = [
    dict(type='LoadRGB', key='gt'),
    dict(type='Flip', keys=['gt'], flip_ratio=0.5, direction='horizontal'),
    dict(type='PackInputs', keys=['gt']),
]
train_dataloader = dict(
    batch_size=4,  # of each of 8 GPUs
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='ResumableSampler', shuffle=True),
    dataset=dict(type='SRFolderDataset', scale=1, pipeline=train_pipeline))

train_cfg = dict(type='ResumableTrainLoop', max_iters=800_000)
val_cfg = val_dataloader = val_evaluator = None
test_cfg = test_dataloader = test_evaluator = None
optim_wrapper = dict(
    constructor='MultiOptimWrapperConstructor',
    generator=dict(optimizer=dict(type='Adam', lr=2e-3 * _g_ratio, betas=(0.0, 0.99**_g_ratio))),
    discriminator=dict(optimizer=dict(type='Adam', lr=2e-3 * _d_ratio, betas=(0.0, 0.99**_d_ratio))),
)
auto_scale_lr = dict(base_batch_size=32, enable=False)  # for --auto-scale-lr
default_hooks = dict(checkpoint=dict(interval=10_000, save_best=None))
custom_hooks = [dict(type='BankSamplesHook', interval=5000)]
randomness = dict(seed=None, diff_rank_seed=True)  # so that each process draws other latent codes
