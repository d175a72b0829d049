_base_ = 'glean_x8_bedroom.py'

model = dict(generator=dict(type='LightGLEANStyleGANv2'))
