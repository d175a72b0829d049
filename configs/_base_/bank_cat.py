# StyleGAN2 configuration f trained on LSUN cat, 256x256.
# Of the file's SHA-256 only the 8 digits in its name are published; they are checked.
_bank = ('https://download.openmmlab.com/mmediting/stylegan2/official_weights/'
         'stylegan2-cat-config-f-official_20210327_172444-15bc485b.pth')
bank = dict(type='Pretrained', checkpoint=_bank, prefix='generator_ema')
bank_discriminator = dict(type='Pretrained', checkpoint=_bank, prefix='discriminator')
