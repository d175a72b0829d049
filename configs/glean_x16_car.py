# Cars, 32x24 -> 512x384 (width x height). The published bank was trained on square images, 512x512, with 64 black rows
# above and below the car; features of another shape would have borders that its convolutions were not trained for. So
# GLEAN and the discriminator add these rows to their input, and GLEAN crops them from its output: data, losses and
# metrics have 512x384 pixels.
_base_ = [
    '_base_/runtime.py',
    '_base_/schedule_300k.py',
    '_base_/glean.py',
    '_base_/data_car.py',
    '_base_/bank_car.py',
]

model = dict(
    generator=dict(in_size=(24, 32), out_size=(384, 512), init_cfg=_base_.bank),
    discriminator=dict(in_size=(384, 512), init_cfg=_base_.bank_discriminator),
)
train_dataloader = dict(dataset=dict(scale=16))
val_dataloader = dict(dataset=dict(scale=16))
test_dataloader = val_dataloader
