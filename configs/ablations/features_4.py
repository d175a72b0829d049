# Encoder: of its features, only the coarsest go into the bank.
_base_ = '../demo_glean_x8.py'

model = dict(generator=dict(inject_at=[4]))
