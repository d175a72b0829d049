# Faces at 256x256: MMGeneration's StyleGAN2 of FFHQ at that size, and FFHQ and CelebA-HQ resized to it.
_base_ = 'glean_x8_cat.py'

# Of the file's SHA-256 only the 8 digits in its name are published; they are checked.
_bank = ('https://download.openmmlab.com/mmediting/stylegan2/'
         'stylegan2_c2_ffhq_256_b4x8_20210407_160709-7890ae1f.pth')
bank = dict(checkpoint=_bank)
bank_discriminator = dict(checkpoint=_bank)
model = dict(generator=dict(init_cfg=bank), discriminator=dict(init_cfg=bank_discriminator))
train_dataloader = dict(dataset=dict(data_root='data/ffhq256'))
val_dataloader = dict(dataset=dict(data_root='data/CelebA-HQ256'))
test_dataloader = val_dataloader
