# Decoder: LightGLEAN's narrow one.
_base_ = '../demo_glean_x8.py'

model = dict(generator=dict(decoder='slim'))
