# 8x8 -> 64x64 emoji of nine classes in one model, at the size of the demonstration. Its bank is shipped; the images
# come from python -m experiments.emoji_data.
_base_ = ['demo_glean_x8.py', '_base_/emoji.py']

model = dict(
    generator=dict(
        _delete_=True,
        type='GLEANBigGAN',
        in_size=8,
        out_size=64,
        class_names=_base_.emoji_classes,
        trunk='residual',
        rrdb_channels=48,
        num_rrdbs=10,
        global_skip=True,
        max_channels=80,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='glean-ext://demo_biggan_bank.safetensors',
            prefix='generator_ema'),
        attention_at=[],
        **_base_.emoji_bank),
    discriminator=dict(init_cfg=None),
)
train_dataloader = dict(dataset=_base_.emoji_train)
val_dataloader = dict(dataset=_base_.emoji_test)
test_dataloader = val_dataloader
train_cfg = dict(max_iters=1500, val_interval=500)
param_scheduler = dict(T_max=1500)
