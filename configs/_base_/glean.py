# The restorer and the loss of the paper: MSE + 1e-2 perceptual + 1e-2 adversarial.
model = dict(
    type='GLEAN',
    generator=dict(type='GLEANStyleGANv2'),
    discriminator=dict(type='StyleGANv2Discriminator'),
    pixel_loss=dict(type='MSELoss', loss_weight=1.0, reduction='mean'),
    perceptual_loss=dict(
        type='PerceptualLoss',
        layer_weights={'21': 1.0},
        vgg_type='vgg16',
        perceptual_weight=1e-2,
        style_weight=0,
        input_range=(-1, 1),
        criterion='mse',
        pretrained='torchvision://vgg16'),
    gan_loss=dict(type='GANLoss', gan_type='vanilla', loss_weight=1e-2, real_label_val=1.0, fake_label_val=0),
    data_preprocessor=dict(type='DataPreprocessor', mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
)
