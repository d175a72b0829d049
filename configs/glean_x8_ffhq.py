# As glean_in128out1024_ffhq.py, but for images that are small and otherwise clean. 4 GPUs x 2 images.
_base_ = 'glean_x16_ffhq.py'

model = dict(generator=dict(in_size=128))
train_dataloader = dict(batch_size=2, dataset=dict(scale=8))
val_dataloader = dict(dataset=dict(scale=8))
test_dataloader = val_dataloader
