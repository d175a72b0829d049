# A latent bank of your own: 512x512 images below data/bank/train/GT (tools/prepare_data.py SOURCE data/bank --size 512).
_base_ = '_base_/bank_training.py'

model = dict(generator=dict(out_size=512), discriminator=dict(in_size=512))
train_dataloader = dict(dataset=dict(data_root='data/bank/train', data_prefix=dict(gt='GT')))
