# 8x8 -> 64x64 cartoon faces with a small diffusion model as the bank, which python -m experiments.train_diffusion
# cartoons trains.
_base_ = 'demo_glean_x8.py'

model = dict(
    generator=dict(
        _delete_=True,
        type='GLEANDiffusion',
        in_size=8,
        out_size=64,
        pipeline='work_dirs/cartoons_diffusion',
        timestep=200,
        rrdb_channels=32,
        num_rrdbs=1,
        encoder_channels=80),
)
