# Mixed precision: bf16 needs no loss scaling; dtype='float16' scales the loss (GPU only).
_base_ = 'glean_x8_cat.py'

optim_wrapper = dict(
    generator=dict(type='MixedPrecisionOptimWrapper', dtype='bfloat16'),
    discriminator=dict(type='MixedPrecisionOptimWrapper', dtype='bfloat16'),
)
