# The narrow StyleGAN2 that this package ships: cartoon faces, 64x64. It was trained by python -m demo.make_assets.
_bank = 'glean-ext://demo_bank.safetensors'
bank = dict(type='Pretrained', checkpoint=_bank, prefix='generator_ema')
bank_discriminator = dict(type='Pretrained', checkpoint=_bank, prefix='discriminator')
bank_widths = dict(channel_multiplier=0.125, max_channels=80)
bank_sizes = dict(style_channels=64, num_mlps=4, **bank_widths)
