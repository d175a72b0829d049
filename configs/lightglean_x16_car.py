# LightGLEAN takes images of any size, so it needs no black rows; the discriminator does.
_base_ = 'glean_x16_car.py'

model = dict(generator=dict(type='LightGLEANStyleGANv2'))
