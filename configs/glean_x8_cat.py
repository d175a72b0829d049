_base_ = [
    '_base_/runtime.py',
    '_base_/schedule_300k.py',
    '_base_/glean.py',
    '_base_/data_cat.py',
    '_base_/bank_cat.py',
]

model = dict(
    generator=dict(in_size=32, out_size=256, init_cfg=_base_.bank),
    discriminator=dict(in_size=256, init_cfg=_base_.bank_discriminator),
)
train_dataloader = dict(dataset=dict(scale=8))
val_dataloader = dict(dataset=dict(scale=8))
test_dataloader = val_dataloader
