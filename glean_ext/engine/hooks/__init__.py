"""mmengine hooks for training, one in each file."""
