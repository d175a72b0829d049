_base_ = 'glean_x16_ffhq.py'

model = dict(generator=dict(in_size=16))
train_dataloader = dict(dataset=dict(scale=64))
val_dataloader = dict(dataset=dict(scale=64))
test_dataloader = val_dataloader
