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
        init_cfg=_base_.bank,
        **_base_.bank_sizes))
optim_wrapper = dict(generator=dict(optimizer=dict(lr=2e-3)))
