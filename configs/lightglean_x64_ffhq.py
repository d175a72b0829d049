_base_ = 'glean_x64_ffhq.py'

model = dict(generator=dict(type='LightGLEANStyleGANv2'))
