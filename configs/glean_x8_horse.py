# Horses: StyleGAN2 configuration f trained on LSUN horse, 256x256.
_base_ = 'glean_x8_cat.py'

# Of the file's SHA-256 only the 8 digits in its name are published; they are checked.
_bank = ('https://download.openmmlab.com/mmediting/stylegan2/official_weights/'
         'stylegan2-horse-config-f-official_20210327_173203-ef3e69ca.pth')
bank = dict(checkpoint=_bank)
bank_discriminator = dict(checkpoint=_bank)
model = dict(generator=dict(init_cfg=bank), discriminator=dict(init_cfg=bank_discriminator))
train_dataloader = dict(dataset=dict(data_root='data/LSUN-horse'))
val_dataloader = dict(dataset=dict(data_root='data/horse_test'))
test_dataloader = val_dataloader
