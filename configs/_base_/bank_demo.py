# The narrow StyleGAN2 that this package ships: cartoon faces, 64x64 (tools/make_demo_assets.py made it).
_bank = 'glean-ext://demo_bank.safetensors'
bank = dict(type='Pretrained', checkpoint=_bank, prefix='generator_ema')
bank_discriminator = dict(type='Pretrained', checkpoint=_bank, prefix='discriminator')
