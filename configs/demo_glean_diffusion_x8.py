# 8x8 -> 64x64 cartoon faces with a small diffusion model as the bank, which is shipped (4.5 M parameters, 40,000 images
# shown). It was made by: python -m experiments.train_diffusion cartoons --images 40000 --ship
_base_ = 'demo_glean_x8.py'

model = dict(
    generator=dict(
        _delete_=True,
        type='GLEANDiffusion',
        in_size=8,
        out_size=64,
        pipeline=dict(
            unet=dict(
                _class_name='UNet2DModel',
                sample_size=64,
                layers_per_block=1,
                block_out_channels=(16, 32, 96, 160),
                norm_num_groups=8,
                attention_head_dim=32,
                down_block_types=('DownBlock2D', 'DownBlock2D', 'AttnDownBlock2D', 'AttnDownBlock2D'),
                up_block_types=('AttnUpBlock2D', 'AttnUpBlock2D', 'UpBlock2D', 'UpBlock2D')),
            scheduler=dict(
                _class_name='DDIMScheduler', beta_schedule='squaredcos_cap_v2', prediction_type='v_prediction')),
        timestep=200,
        rrdb_channels=32,
        num_rrdbs=1,
        encoder_channels=80,
        init_cfg=dict(type='Pretrained', checkpoint='glean-ext://demo_diffusion_bank.safetensors')))
