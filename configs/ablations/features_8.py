# Encoder: of its features, only the finest go into the bank.
_base_ = '../demo_glean_x8.py'

model = dict(generator=dict(inject_at=[8]))
