# Bank: pre-trained, and trained with the rest.
_base_ = '../demo_glean_x8.py'

model = dict(generator=dict(bank='tuned'))
