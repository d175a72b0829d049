# Bank: of the same size and frozen, but with random weights.
_base_ = '../demo_glean_x8.py'

model = dict(generator=dict(bank_init='random', init_cfg=None))
