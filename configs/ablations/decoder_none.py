# Decoder: none. The bank's own image is the result.
_base_ = '../demo_glean_x8.py'

model = dict(generator=dict(decoder='none'))
