# Data with references, a folder for each identity, for a config of your own:
#     _base_ = ['glean_x8_ffhq256.py', '_base_/references.py']
#     model = dict(generator=dict(references=True))  # GLEANStyleGANv2; GLEANDiffusion takes references anyway
#     train_dataloader = dict(dataset=_base_.train_references)
#     model_wrapper_cfg = dict(find_unused_parameters=True)  # batches without references leave parameters unused
# LoadReferences draws as many as its number; the restorer leaves all out in a share of the batches
# (model.reference_dropout, 0.3).
train_references = dict(
    recursive=True,
    references='folders',
    pipeline=[
        dict(type='LoadRGB', key='gt'),
        dict(type='LoadReferences', number=2),
        dict(type='LoadOrMakeLQ'),
        dict(type='Flip', keys=['img', 'gt', 'ref'], flip_ratio=0.5, direction='horizontal'),
        dict(type='PackInputs'),
    ])
test_references = dict(
    recursive=True,
    references='folders',
    pipeline=[
        dict(type='LoadRGB', key='gt'),
        dict(type='LoadReferences', number=2, shuffle=False),
        dict(type='LoadOrMakeLQ'),
        dict(type='PackInputs'),
    ])
