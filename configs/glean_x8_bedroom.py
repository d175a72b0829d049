# Bedrooms, 256x256. No StyleGAN2 of LSUN bedroom is published in OpenMMLab's format: train one (bank_256.py) or convert
# one (tools/convert_bank.py), discriminator included, and put it where _bank says.
_base_ = 'glean_x8_cat.py'

_bank = 'data/banks/stylegan2-bedroom-config-f.safetensors'
bank = dict(checkpoint=_bank)
bank_discriminator = dict(checkpoint=_bank)
model = dict(generator=dict(init_cfg=bank), discriminator=dict(init_cfg=bank_discriminator))
train_dataloader = dict(dataset=dict(data_root='data/LSUN-bedroom'))
val_dataloader = dict(dataset=dict(data_root='data/bedroom_test'))
test_dataloader = val_dataloader
