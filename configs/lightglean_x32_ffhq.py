_base_ = 'glean_x32_ffhq.py'

model = dict(generator=dict(type='LightGLEANStyleGANv2'))
