# StyleGAN2 configuration f trained on FFHQ, 1024x1024.
# Of the file's SHA-256 only the 8 digits in its name are published; they are checked.
_bank = ('https://download.openmmlab.com/mmediting/stylegan2/official_weights/'
         'stylegan2-ffhq-config-f-official_20210327_171224-bce9310c.pth')
bank = dict(type='Pretrained', checkpoint=_bank, prefix='generator_ema')
bank_discriminator = dict(type='Pretrained', checkpoint=_bank, prefix='discriminator')
