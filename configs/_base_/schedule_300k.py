# GLEAN, CVPR 2021: Adam, 1e-4 to 1e-7 by half a cosine over 300k iterations.
train_cfg = dict(type='ResumableTrainLoop', max_iters=300_000, val_interval=5000)
val_cfg = dict(type='MultiValLoop')
test_cfg = dict(type='MultiTestLoop')

optim_wrapper = dict(
    constructor='MultiOptimWrapperConstructor',
    generator=dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-4, betas=(0.9, 0.99), fused=True)),
    discriminator=dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-4, betas=(0.9, 0.99), fused=True)),
)
auto_scale_lr = dict(base_batch_size=16, enable=False)  # for --auto-scale-lr
param_scheduler = dict(type='CosineAnnealingLR', by_epoch=False, T_max=300_000, eta_min=1e-7)

val_evaluator = [dict(type='PSNR'), dict(type='SSIM'), dict(type='MAE')]
test_evaluator = val_evaluator
