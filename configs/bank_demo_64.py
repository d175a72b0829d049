# A narrow bank of 64x64 images, to try the training of banks on a CPU: an hour gives recognisable faces. The bank that
# is shipped was trained by python -m demo.make_assets, which is faster.
_base_ = '_base_/bank_training.py'

_width = dict(channel_multiplier=0.125, max_channels=80)
model = dict(
    generator=dict(out_size=64, style_channels=64, num_mlps=4, fp16_enabled=True, **_width),
    discriminator=dict(in_size=64, fp16_enabled=True, **_width),
    ema_config=dict(momentum=1 - 0.5**(16 / 5000)),
    loss_config=dict(r1_loss_weight=1 / 2 * 16),
)
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root='data/demo/train', data_prefix=dict(gt='GT')))
train_cfg = dict(max_iters=10_000)
default_hooks = dict(checkpoint=dict(interval=500), logger=dict(interval=50))
custom_hooks = [dict(type='BankSamplesHook', interval=500)]
env_cfg = dict(dist_cfg=dict(backend='gloo'))
randomness = dict(seed=0)
