# Decoder: none. The output is the bank's image.
_base_ = '../demo_glean_x8.py'

model = dict(generator=dict(decoder='none', global_skip=False))
