# Train on LSUN cat, test on 100 cats of the CAT dataset, both 256x256.
_base_ = 'data.py'

train_dataloader = dict(dataset=dict(data_root='data/LSUN-cat', data_prefix=dict(gt='GT')))
val_dataloader = dict(dataset=dict(data_root='data/cat_test', data_prefix=dict(gt='GT')))
test_dataloader = val_dataloader
