# Blind cartoon faces, 16x16 -> 64x64, by GFPGAN's order of degradations with the blur of images a tenth as large.
_base_ = "demo_glean_x8.py"

model = dict(generator=dict(in_size=16, decoder="slim", fidelity_gate=True))
recipe = [
    dict(type="Blur", kinds=dict(iso=0.5, aniso=0.5), size=[13], sigma=[0.1, 2]),
    dict(type="Resize", scale=[2, 5], divide=True, interpolations=["bilinear"]),
    dict(type="Noise", sigma=[0, 15]),
    dict(type="JPEG", quality=[40, 95]),
    dict(type="Resize", of="gt", interpolations=["bilinear"]),
]
train_pipeline = [
    dict(type="LoadRGB", key="gt"),
    dict(type="BlindDegradation", recipe=recipe),
    dict(type="Flip", keys=["img", "gt"], flip_ratio=0.5, direction="horizontal"),
    dict(type="PackInputs"),
]
test_pipeline = [
    dict(type="LoadRGB", key="gt"),
    dict(type="BlindDegradation", recipe=recipe, seed=0),
    dict(type="PackInputs"),
]
train_dataloader = dict(dataset=dict(scale=4, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(scale=4, pipeline=test_pipeline))
test_dataloader = val_dataloader
