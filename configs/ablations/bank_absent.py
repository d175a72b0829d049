# Bank: none. Encoder and decoder alone, trained from scratch.
_base_ = '../demo_glean_x8.py'

model = dict(generator=dict(bank='absent', init_cfg=None, warm_start=False))
