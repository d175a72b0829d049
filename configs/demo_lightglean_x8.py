# As demo_glean_x8.py, with a deeper trunk in place of the style codes that GLEAN's encoder makes; at most 4 MB in fp16.
_base_ = 'demo_glean_x8.py'

model = dict(generator=dict(type='LightGLEANStyleGANv2', num_rrdbs=3))
