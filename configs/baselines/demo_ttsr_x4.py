# 16x16 -> 64x64 cartoon faces with a reference each, by MMagic's TTSR: the pixel loss alone, its first stage.
# python -m experiments.reference_data draws the references: the same person with another expression and pose.
_base_ = 'demo_srcnn_x4.py'

model = dict(
    _delete_=True,
    type='TTSR',
    generator=dict(
        type='TTSRNet', in_channels=3, out_channels=3, mid_channels=32, texture_channels=64, num_blocks=(4, 4, 2, 2)),
    extractor=dict(type='LTE', load_pretrained_vgg=False),  # True: from torchvision's VGG19, which is downloaded
    transformer=dict(type='SearchTransformer'),
    pixel_loss=dict(type='L1Loss', loss_weight=1.0, reduction='mean'),
    data_preprocessor=dict(type='DataPreprocessor', mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
)

load = [
    dict(type='LoadImageFromFile', key=key, color_type='color', channel_order='rgb', imdecode_backend='pillow')
    for key in ('gt', 'ref')
]
resize = [
    dict(type='Resize', scale=scale, keep_ratio=True, keys=keys, output_keys=output_keys, interpolation='bicubic',
         backend='pillow')
    for scale, keys, output_keys in (
        (0.25, ['gt', 'ref'], ['img', 'ref_down']), (4.0, ['img', 'ref_down'], ['img_lq', 'ref_lq']))
]
flip = [dict(type='Flip', keys=['img', 'gt', 'img_lq', 'ref', 'ref_lq'], flip_ratio=0.5, direction='horizontal')]
train_dataloader = dict(
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        _delete_=True, type='BasicImageDataset', data_root='data/demo/train', data_prefix=dict(gt='GT', ref='REF'),
        pipeline=[*load, *resize, *flip, dict(type='PackInputs')]))
val_dataloader = dict(
    dataset=dict(
        _delete_=True, type='BasicImageDataset', data_root='data/demo/test', data_prefix=dict(gt='GT', ref='REF'),
        pipeline=[*load, *resize, dict(type='PackInputs')]))
test_dataloader = val_dataloader

optim_wrapper = dict(
    _delete_=True,
    constructor='MultiOptimWrapperConstructor',
    generator=dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3, betas=(0.9, 0.99), fused=True)),
    extractor=dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-4, betas=(0.9, 0.99), fused=True)),
)
