# Bank: pre-trained, and fine-tuned together with encoder and decoder.
_base_ = '../demo_glean_x8.py'

model = dict(generator=dict(bank='tuned'))
