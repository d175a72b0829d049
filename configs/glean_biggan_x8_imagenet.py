# 1000 classes in one model: BigGAN-deep in place of StyleGAN2. 2 GPUs x 8 images. No discriminator was released with
# that bank, so it starts from random weights.
_base_ = [
    '_base_/runtime.py',
    '_base_/schedule_300k.py',
    '_base_/glean.py',
    '_base_/data_imagenet.py',
    '_base_/bank_imagenet.py',
    '_base_/imagenet_classes.py',
]

model = dict(
    generator=dict(
        type='GLEANBigGAN',
        in_size=32,
        out_size=256,
        num_classes=1000,
        class_names=_base_.imagenet_classes,
        init_cfg=_base_.bank,
        **_base_.bank_sizes),
    discriminator=dict(in_size=256),
)
train_dataloader = dict(dataset=dict(scale=8))
val_dataloader = dict(dataset=dict(scale=8))
test_dataloader = val_dataloader
