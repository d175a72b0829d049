# Cars, 32x24 -> 512x384 (width x height). The published bank is a square network, 4x4 -> 512x512, whose images have 64
# black rows above and below; a 3x4 start, or cropped features, would give its convolutions borders that they have never
# seen. So GLEAN and the discriminator add the rows to what they get, and GLEAN cuts them off what it returns: data,
# losses and metrics know 512x384 only, and the bank knows what it gets.
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
