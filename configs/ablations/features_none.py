# Encoder: the bank gets style codes only, and no features.
_base_ = '../demo_glean_x8.py'

model = dict(generator=dict(inject_at=[]))
