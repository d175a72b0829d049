# As demo_glean_x8.py, for the minutes of `make demo`: it learns quickly, and has the adversarial loss, which takes two
# fifths of a step, at the end only.
_base_ = 'demo_glean_x8.py'

model = dict(adversarial_from=200)
train_cfg = dict(max_iters=240, val_interval=240)
optim_wrapper = dict(generator=dict(optimizer=dict(lr=2e-3)))
param_scheduler = dict(
    _delete_=True,
    generator=[
        dict(type='LinearLR', by_epoch=False, start_factor=0.05, begin=0, end=20),
        dict(type='CosineAnnealingLR', by_epoch=False, begin=20, end=240, T_max=220, eta_min=1e-6),
    ],
    discriminator=[],  # its learning rate is constant
)
default_hooks = dict(checkpoint=dict(interval=240), logger=dict(interval=40))
