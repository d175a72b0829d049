# It starts inside the bank and takes any size, so it sees no black rows; the discriminator does.
_base_ = 'glean_x16_car.py'

model = dict(generator=dict(type='LightGLEANStyleGANv2'))
