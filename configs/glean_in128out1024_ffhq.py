# Blind faces: blur, resize, noise and JPEG, 128 -> 1024. 4 GPUs x 2 images.
_base_ = 'glean_x16_ffhq.py'

model = dict(generator=dict(in_size=128))
_any_interpolation = dict(resize_opt=['bilinear', 'area', 'bicubic'], resize_prob=[1 / 3, 1 / 3, 1 / 3])
train_pipeline = [
    dict(type='LoadRGB', key='gt'),
    dict(type='CopyValues', src_keys=['gt'], dst_keys=['img']),
    dict(
        type='RandomBlur',
        keys=['img'],
        params=dict(
            kernel_size=[41],
            kernel_list=['iso', 'aniso'],
            kernel_prob=[0.5, 0.5],
            sigma_x=[0.2, 10],
            sigma_y=[0.2, 10],
            rotate_angle=[-3.1416, 3.1416])),
    dict(
        type='RandomResize',
        keys=['img'],
        params=dict(resize_mode_prob=[0, 1, 0], resize_scale=[1 / 32, 1], **_any_interpolation)),
    dict(
        type='RandomNoise',
        keys=['img'],
        params=dict(noise_type=['gaussian'], noise_prob=[1], gaussian_sigma=[0, 50], gaussian_gray_noise_prob=0)),
    dict(type='RandomJPEGCompression', keys=['img'], params=dict(quality=[5, 50])),
    dict(type='RandomResize', keys=['img'], params=dict(target_size=(1024, 1024), **_any_interpolation)),
    dict(type='Clip', keys=['img']),
    dict(type='RandomResize', keys=['img'], params=dict(target_size=(128, 128), resize_opt=['area'], resize_prob=[1])),
    dict(type='Flip', keys=['img', 'gt'], flip_ratio=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=2, dataset=dict(scale=8, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(scale=8))
test_dataloader = val_dataloader
