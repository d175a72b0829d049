# The data and losses of demo_glean_x8.py; three RRDB blocks and a wide decoder, no skip; at most 4 MB in fp16.
_base_ = 'demo_glean_x8.py'

model = dict(
    generator=dict(
        _delete_=True,
        type='LightGLEANStyleGANv2',
        in_size=8,
        out_size=64,
        rrdb_channels=32,
        num_rrdbs=3,
        decoder_channels=48,
        style_channels=64,
        num_mlps=4,
        channel_multiplier=0.125,
        max_channels=80,
        init_cfg=_base_.bank))
optim_wrapper = dict(generator=dict(optimizer=dict(lr=2e-3)))
