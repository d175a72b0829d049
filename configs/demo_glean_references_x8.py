# 8x8 -> 64x64 cartoon people, each with other pictures of the same one, which python -m demo.render_people draws.
_base_ = ['demo_glean_x8.py', '_base_/references.py']

model = dict(generator=dict(references=True))
train_dataloader = dict(dataset=dict(_base_.train_references, data_root='data/people/train'))
val_dataloader = dict(dataset=dict(_base_.test_references, data_root='data/people/test'))
test_dataloader = val_dataloader
# Batches without references leave their part of the network untrained.
model_wrapper_cfg = dict(find_unused_parameters=True)
