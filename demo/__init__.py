"""The offline demonstration: its images, its latent bank, and the run of the whole chain."""
