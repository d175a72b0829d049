# Blind faces, 128 -> 1024: trained on blur, noise and JPEG, validated on bicubic inputs as published. 4 GPUs x 2 images.
_base_ = 'glean_x8_ffhq.py'

train_pipeline = [
    dict(type='LoadRGB', key='gt'),
    dict(type='BlindDegradation', preset='glean'),
    dict(type='Flip', keys=['img', 'gt'], flip_ratio=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
