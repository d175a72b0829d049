_base_ = 'glean_x8_ffhq.py'

model = dict(generator=dict(type='LightGLEANStyleGANv2'))
