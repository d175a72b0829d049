# As demo_glean_x8.py, with a deeper trunk and a wider decoder instead of style codes; at most 4 MB in fp16.
_base_ = 'demo_glean_x8.py'

model = dict(generator=dict(type='LightGLEANStyleGANv2', num_rrdbs=3, decoder_channels=48))
optim_wrapper = dict(generator=dict(optimizer=dict(lr=2e-3)))
