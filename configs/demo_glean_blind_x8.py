# Blind cartoon faces, 8x8 -> 64x64, by GFPGAN's order of degradations with the blur of images a tenth as large, and with
# the fidelity gate. Best fine-tuned from the model for clean inputs, as this command does (20 minutes of one core):
#     python -m demo.make_assets glean --config configs/demo_glean_blind_x8.py --init glean-ext://demo_glean_x8.safetensors \
#         --max-iters 1000
_base_ = 'demo_glean_x8.py'

model = dict(generator=dict(fidelity_gate=True))
recipe = [
    dict(type='Blur', kinds=dict(iso=0.5, aniso=0.5), size=[13], sigma=[0.1, 2]),
    dict(type='Resize', scale=[4, 8], divide=True, interpolations=['bilinear']),
    dict(type='Noise', sigma=[0, 20]),
    dict(type='JPEG', quality=[40, 95]),
    dict(type='Resize', of='gt', interpolations=['bilinear']),
]
train_pipeline = [
    dict(type='LoadRGB', key='gt'),
    dict(type='BlindDegradation', recipe=recipe),
    dict(type='Flip', keys=['img', 'gt'], flip_ratio=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadRGB', key='gt'),
    dict(type='BlindDegradation', recipe=recipe, seed=0),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

train_cfg = dict(max_iters=1000, val_interval=500)
optim_wrapper = dict(generator=dict(optimizer=dict(lr=3e-4)), discriminator=dict(optimizer=dict(lr=3e-4)))
param_scheduler = dict(T_max=1000)
default_hooks = dict(checkpoint=dict(interval=100))
