# StyleGAN2 configuration f trained on LSUN car: 512x384 images in the middle of a black 512x512 canvas.
# Of the file's SHA-256 only the 8 digits in its name are published; they are checked.
_bank = ('https://download.openmmlab.com/mmediting/stylegan2/official_weights/'
         'stylegan2-car-config-f-official_20210327_172340-8cfe053c.pth')
bank = dict(type='Pretrained', checkpoint=_bank, prefix='generator_ema')
bank_discriminator = dict(type='Pretrained', checkpoint=_bank, prefix='discriminator')
