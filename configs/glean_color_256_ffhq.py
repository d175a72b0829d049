# Colours for gray faces, 256x256; the encoder starts at 64x64. One decides what colours they might have had.
_base_ = 'glean_x8_ffhq256.py'

model = dict(
    type='GLEANColorizer',
    generator=dict(type='GLEANColorization', in_size=256, encoder_size=64),
    candidates=4,
)
train_pipeline = [
    dict(type='LoadRGB', key='gt'),
    dict(type='BlindDegradation', preset='gray'),
    dict(type='Flip', keys=['img', 'gt'], flip_ratio=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadRGB', key='gt'),
    dict(type='BlindDegradation', preset='gray'),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(scale=1, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(scale=1, pipeline=test_pipeline))
test_dataloader = val_dataloader
