_base_ = 'glean_x8_cat.py'

model = dict(generator=dict(type='LightGLEANStyleGANv2'))
