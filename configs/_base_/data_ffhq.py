# Train on the 70,000 images of FFHQ, test on 100 of CelebA-HQ, both 1024x1024.
_base_ = 'data.py'

train_dataloader = dict(dataset=dict(data_root='data/ffhq', data_prefix=dict(gt='images')))
val_dataloader = dict(dataset=dict(data_root='data/CelebA-HQ', data_prefix=dict(gt='GT')))
test_dataloader = val_dataloader
