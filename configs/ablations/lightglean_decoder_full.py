# LightGLEAN with GLEAN's decoder.
_base_ = '../demo_lightglean_x8.py'

model = dict(generator=dict(decoder='full'))
