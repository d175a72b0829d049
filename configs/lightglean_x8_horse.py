_base_ = 'glean_x8_horse.py'

model = dict(generator=dict(type='LightGLEANStyleGANv2'))
