_base_ = 'glean_blind_in128out1024_ffhq.py'

model = dict(generator=dict(type='LightGLEANStyleGANv2'))
