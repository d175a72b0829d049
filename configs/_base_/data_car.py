# Train on LSUN car, cropped and resized to 512x384 (width x height) as for StyleGAN2; test on others of that size.
_base_ = 'data.py'

train_dataloader = dict(dataset=dict(data_root='data/LSUN-car', data_prefix=dict(gt='GT')))
val_dataloader = dict(dataset=dict(data_root='data/car_test', data_prefix=dict(gt='GT')))
test_dataloader = val_dataloader
