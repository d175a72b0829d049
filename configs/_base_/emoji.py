# Emoji of nine classes, 64x64 (python -m experiments.emoji_data makes them), and the sizes of a narrow BigGAN for them.
emoji_classes = ['faces', 'people', 'animals', 'food', 'transport', 'flags', 'objects', 'symbols', 'activities']
_labels = dict(data_prefix=dict(gt='GT'), labels='../classes.json', classes=emoji_classes)
emoji_train = dict(data_root='data/emoji/train', **_labels)
emoji_test = dict(data_root='data/emoji/test', **_labels)
emoji_bank = dict(num_classes=9, base_channels=8, noise_size=60, shared_dim=32)
