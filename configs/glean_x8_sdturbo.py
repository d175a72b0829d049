# 64x64 -> 512x512 faces with SD-Turbo as the bank, which makes images in one pass, at the last time step.
_base_ = 'glean_x4_sd21.py'

model = dict(generator=dict(in_size=64, pipeline='data/banks/sd-turbo', timestep=999))
train_dataloader = dict(dataset=dict(scale=8))
val_dataloader = dict(dataset=dict(scale=8))
test_dataloader = val_dataloader
