# As demo_glean_diffusion_x8.py, with references.
_base_ = ['demo_glean_diffusion_x8.py', '_base_/references.py']

train_dataloader = dict(dataset=dict(_base_.train_references, data_root='data/people/train'))
val_dataloader = dict(dataset=dict(_base_.test_references, data_root='data/people/test'))
test_dataloader = val_dataloader
