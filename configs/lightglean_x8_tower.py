_base_ = 'glean_x8_tower.py'

model = dict(generator=dict(type='LightGLEANStyleGANv2'))
