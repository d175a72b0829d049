# 128x128 -> 512x512 faces with Stable Diffusion 2.1 (base, 512 px) as the bank: one pass, no text. 4 GPUs x 2 images.
# Put the model's folder (unet/, vae/, scheduler/) where pipeline says.
_base_ = ['_base_/runtime.py', '_base_/schedule_300k.py', '_base_/glean.py', '_base_/data_ffhq.py']

model = dict(
    generator=dict(
        _delete_=True,
        type='GLEANDiffusion',
        in_size=128,
        out_size=512,
        pipeline='data/banks/stable-diffusion-2-1-base',
        timestep=200,
        num_codes=16,
        encoder_channels=256,
        decoder_channels=64,
        fp16_enabled=True),
    discriminator=dict(in_size=512),
)
train_dataloader = dict(batch_size=2, dataset=dict(scale=4, data_root='data/ffhq512'))
val_dataloader = dict(dataset=dict(scale=4, data_root='data/CelebA-HQ512'))
test_dataloader = val_dataloader
