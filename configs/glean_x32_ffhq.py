_base_ = 'glean_x16_ffhq.py'

model = dict(generator=dict(in_size=32))
train_dataloader = dict(dataset=dict(scale=32))
val_dataloader = dict(dataset=dict(scale=32))
test_dataloader = val_dataloader
