# Parts of the recipes of blind restoration, to choose from in a config of your own:
#     _base_ = ['glean_blind_in128out512_ffhq.py', '_base_/recipe_parts.py']
#     model = dict(perceptual_loss=_base_.lpips_loss, discriminator=_base_.unet_discriminator)
lpips_loss = dict(_delete_=True, type='LPIPSLoss', loss_weight=1.0, net='alex', pretrained='torchvision://alexnet')
# Real-ESRGAN's (ICCVW 2021): a U-Net with spectral norm, which judges every pixel. Its GAN loss has the weight 0.1.
unet_discriminator = dict(_delete_=True, type='UNetDiscriminatorWithSpectralNorm', in_channels=3, mid_channels=64)
# As Projected GAN (NeurIPS 2021): small discriminators on features of a frozen network.
feature_discriminator = dict(
    _delete_=True,
    type='FeatureDiscriminator',
    backbone=dict(type='VGGFeatures', layers=['8', '15', '22'], vgg_type='vgg16', use_input_norm=True),
    pretrained='torchvision://vgg16')
# GFPGAN's (CVPR 2021), for aligned faces; its release has the file.
identity_loss = dict(type='IdentityLoss', pretrained='data/weights/arcface_resnet18.pth', loss_weight=10.0)
