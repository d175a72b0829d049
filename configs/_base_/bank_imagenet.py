# BigGAN-deep trained on ImageNet, 256x256: DeepMind's weights, converted by MMagic. Of the file's SHA-256 only the 8
# digits in its name are published; they are checked. The error for a wrong prefix names those of the file.
_bank = ('https://download.openmmlab.com/mmediting/biggan/'
         'biggan-deep_imagenet1k_256x256_cvt_hugging-face_rgb_20210728_111735-28651569.pth')
bank = dict(type='Pretrained', checkpoint=_bank, prefix='generator_ema')
bank_sizes = dict(deep=True, base_channels=128, noise_size=128, shared_dim=128)
