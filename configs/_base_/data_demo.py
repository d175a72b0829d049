# Cartoon faces, 64x64: 5000 to train, 200 held out. `make demo` renders them.
_base_ = 'data.py'

train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root='data/demo/train', data_prefix=dict(gt='GT')))
val_dataloader = dict(
    batch_size=10,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root='data/demo/test', data_prefix=dict(gt='GT')))
test_dataloader = val_dataloader
