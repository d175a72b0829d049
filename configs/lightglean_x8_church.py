_base_ = 'glean_x8_church.py'

model = dict(generator=dict(type='LightGLEANStyleGANv2'))
