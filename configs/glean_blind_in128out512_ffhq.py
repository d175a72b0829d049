# Blind faces, 128 -> 512, by GFPGAN's degradations. No StyleGAN2 of FFHQ at 512x512 is published in OpenMMLab's format:
# train one (bank_512.py) or convert one (tools/convert_bank.py), discriminator included, and put it where _bank says.
_base_ = 'glean_blind_in128out1024_ffhq.py'

_bank = 'data/banks/stylegan2-ffhq512-config-f.safetensors'
bank = dict(checkpoint=_bank)
bank_discriminator = dict(checkpoint=_bank)
model = dict(
    generator=dict(out_size=512, init_cfg=bank, fidelity_gate=True),
    discriminator=dict(in_size=512, init_cfg=bank_discriminator),
)
train_pipeline = _base_.train_pipeline
train_pipeline[1].preset = 'gfpgan'
test_pipeline = _base_.test_pipeline
test_pipeline[1].preset = 'gfpgan'
_size = dict(scale=4)
train_dataloader = dict(batch_size=4, dataset=dict(**_size, data_root='data/ffhq512', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**_size, data_root='data/CelebA-HQ512', pipeline=test_pipeline))
test_dataloader = val_dataloader
