# A latent bank of your own: 256x256 images below data/bank/train/GT (tools/prepare_data.py SOURCE data/bank --size 256).
_base_ = '_base_/bank_training.py'

model = dict(generator=dict(out_size=256), discriminator=dict(in_size=256))
train_dataloader = dict(dataset=dict(data_root='data/bank/train', data_prefix=dict(gt='GT')))
