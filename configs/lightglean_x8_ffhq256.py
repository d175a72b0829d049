_base_ = 'glean_x8_ffhq256.py'

model = dict(generator=dict(type='LightGLEANStyleGANv2'))
