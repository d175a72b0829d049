_base_ = [
    '_base_/runtime.py',
    '_base_/schedule_300k.py',
    '_base_/glean.py',
    '_base_/data_ffhq.py',
    '_base_/bank_ffhq.py',
]

model = dict(
    generator=dict(in_size=64, out_size=1024, init_cfg=_base_.bank),
    discriminator=dict(in_size=1024, init_cfg=_base_.bank_discriminator),
)
train_dataloader = dict(dataset=dict(scale=16))
val_dataloader = dict(dataset=dict(scale=16))
test_dataloader = val_dataloader
