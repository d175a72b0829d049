_base_ = 'glean_blind_in128out512_ffhq.py'

model = dict(generator=dict(type='LightGLEANStyleGANv2'))
