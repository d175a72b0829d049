# Ground truth from a folder; the low-resolution images are made from it, or come from data_prefix.img.
# An experiment sets data_root, data_prefix and scale.
train_pipeline = [
    dict(type='LoadRGB', key='gt'),
    dict(type='LoadOrMakeLQ'),
    dict(type='Flip', keys=['img', 'gt'], flip_ratio=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadRGB', key='gt'),
    dict(type='LoadOrMakeLQ'),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='ResumableSampler', shuffle=True),
    dataset=dict(type='SRFolderDataset', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='SRFolderDataset', pipeline=test_pipeline, test_mode=True),
)
test_dataloader = val_dataloader
