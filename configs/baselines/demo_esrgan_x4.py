# 16x16 -> 64x64 cartoon faces by MMagic's ESRGAN (RRDB network, relativistic loss), for comparison with GLEAN.
_base_ = 'demo_srgan_x4.py'

model = dict(
    type='ESRGAN',
    generator=dict(
        _delete_=True, type='RRDBNet', in_channels=3, out_channels=3, mid_channels=32, num_blocks=4,
        growth_channels=32, upscale_factor=4),
)
