# Colours for gray cartoon faces, 64x64; the encoder starts at 16x16.
_base_ = 'demo_glean_x8.py'

model = dict(
    type='GLEANColorizer',
    generator=dict(
        _delete_=True,
        type='GLEANColorization',
        in_size=64,
        out_size=64,
        encoder_size=16,
        rrdb_channels=32,
        num_rrdbs=1,
        init_cfg=_base_.bank,
        **_base_.bank_sizes),
    discriminator=None,  # the nearest of several answers has flat, saturated colours without one
    gan_loss=None,
    candidates=3,
)
_base_.train_pipeline[1] = dict(type='BlindDegradation', preset='gray')
_base_.test_pipeline[1] = dict(type='BlindDegradation', preset='gray')
train_dataloader = dict(batch_size=8, dataset=dict(scale=1, pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(scale=1, pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader

train_cfg = dict(max_iters=400, val_interval=400)
optim_wrapper = dict(discriminator=None)
param_scheduler = dict(T_max=400)
default_hooks = dict(checkpoint=dict(interval=200))
