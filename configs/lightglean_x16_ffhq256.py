_base_ = 'glean_x16_ffhq256.py'

model = dict(generator=dict(type='LightGLEANStyleGANv2'))
