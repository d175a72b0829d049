# Train on ImageNet, cropped and resized to 256x256, in a folder for each of the 1000 classes; sorted, the folders have
# the numbers of the classes. Test on other images, whose classes the network estimates.
_base_ = 'data.py'

train_dataloader = dict(
    dataset=dict(data_root='data/imagenet', data_prefix=dict(gt='train'), recursive=True, labels='folders', classes=1000))
val_dataloader = dict(dataset=dict(data_root='data/imagenet', data_prefix=dict(gt='val'), recursive=True))
test_dataloader = val_dataloader
