# As demo_glean_x8.py; at most 4 MB in fp16.
_base_ = 'demo_glean_x8.py'

model = dict(generator=dict(type='LightGLEANStyleGANv2'))
