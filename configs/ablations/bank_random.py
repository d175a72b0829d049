# Bank: as wide, frozen, but never trained.
_base_ = '../demo_glean_x8.py'

model = dict(generator=dict(bank_init='random', init_cfg=None))
