# LightGLEAN without bank.
_base_ = '../demo_lightglean_x8.py'

model = dict(generator=dict(bank='absent', init_cfg=None))
