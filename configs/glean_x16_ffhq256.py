_base_ = 'glean_x8_ffhq256.py'

model = dict(generator=dict(in_size=16))
train_dataloader = dict(dataset=dict(scale=16))
val_dataloader = dict(dataset=dict(scale=16))
test_dataloader = val_dataloader
