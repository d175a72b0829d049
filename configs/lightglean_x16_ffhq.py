_base_ = 'glean_x16_ffhq.py'

model = dict(generator=dict(type='LightGLEANStyleGANv2'))
