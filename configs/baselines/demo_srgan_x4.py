# 16x16 -> 64x64 cartoon faces by MMagic's SRGAN, for comparison with GLEAN: its losses, data and discriminator.
_base_ = ['demo_srcnn_x4.py', '../_base_/bank_demo.py']

model = dict(
    type='SRGAN',
    generator=dict(
        _delete_=True, type='MSRResNet', in_channels=3, out_channels=3, mid_channels=64, num_blocks=16,
        upscale_factor=4),
    discriminator=dict(
        type='StyleGANv2Discriminator', in_size=64, channel_multiplier=0.125, max_channels=80,
        init_cfg=_base_.bank_discriminator),
    gan_loss=dict(type='GANLoss', gan_type='vanilla', loss_weight=1e-3, real_label_val=1.0, fake_label_val=0),
)
optim_wrapper = dict(
    _delete_=True,
    constructor='MultiOptimWrapperConstructor',
    generator=dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3, betas=(0.9, 0.99), fused=True)),
    discriminator=dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=5e-4, betas=(0.9, 0.99), fused=True)),
)
