# A narrow BigGAN of nine classes of emoji, by MMagic's trainer, without self-attention. On a CPU
# python -m experiments.train_banks emoji-classes is faster: it learns to draw the images first. The average is a bank for
# demo_glean_biggan_x8.py: init_cfg=dict(type='Pretrained', checkpoint=<iter_N.pth>, prefix='generator_ema').
_base_ = ['_base_/runtime.py', '_base_/emoji.py']

model = dict(
    type='BigGAN',
    num_classes=9,
    data_preprocessor=dict(type='DataPreprocessor', mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    generator=dict(
        type='BigGANGenerator',
        output_scale=64,
        auto_sync_bn=False,
        arch_cfg=dict(
            in_channels=[128, 128, 64, 32],
            out_channels=[128, 64, 32, 16],
            upsample=[True] * 4,
            attention=[False] * 4),
        **_base_.emoji_bank),
    discriminator=dict(type='BigGANDiscriminator', input_scale=64, num_classes=9, base_channels=12),
    generator_steps=1,
    discriminator_steps=1,
    ema_config=dict(type='ExponentialMovingAverage', interval=1, momentum=1e-3, update_buffers=True),
)
train_pipeline = [
    dict(type='LoadRGB', key='gt'),
    dict(type='Flip', keys=['gt'], flip_ratio=0.5, direction='horizontal'),
    dict(type='PackInputs', keys=['gt']),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='ResumableSampler', shuffle=True),
    dataset=dict(type='SRFolderDataset', scale=1, pipeline=train_pipeline, **_base_.emoji_train))

train_cfg = dict(type='ResumableTrainLoop', max_iters=50_000)
val_cfg = val_dataloader = val_evaluator = None
test_cfg = test_dataloader = test_evaluator = None
optim_wrapper = dict(
    constructor='MultiOptimWrapperConstructor',
    generator=dict(optimizer=dict(type='Adam', lr=1e-4, betas=(0.0, 0.999), eps=1e-6)),
    discriminator=dict(optimizer=dict(type='Adam', lr=4e-4, betas=(0.0, 0.999), eps=1e-6)),
)
default_hooks = dict(checkpoint=dict(interval=1000, save_best=None), logger=dict(interval=50))
custom_hooks = [dict(type='ProgressBarHook')]
env_cfg = dict(dist_cfg=dict(backend='gloo'))
randomness = dict(seed=0)
