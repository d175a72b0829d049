# As glean_in128out1024_ffhq.py, but validated on blind inputs, too: the same degradation for an image each time.
_base_ = 'glean_in128out1024_ffhq.py'

test_pipeline = [
    dict(type='LoadRGB', key='gt'),
    dict(type='BlindDegradation', preset='glean', seed=0),
    dict(type='PackInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
