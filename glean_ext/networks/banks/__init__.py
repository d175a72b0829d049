"""What is frozen: the latent banks."""
