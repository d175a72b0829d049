# Encoder: only the style codes tell the bank of the input.
_base_ = '../demo_glean_x8.py'

model = dict(generator=dict(inject_at=[]))
