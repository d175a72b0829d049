# Encoder: the bank gets the coarsest features only.
_base_ = '../demo_glean_x8.py'

model = dict(generator=dict(inject_at=[4]))
