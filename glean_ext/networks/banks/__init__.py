"""The latent banks: pre-trained generators whose weights stay frozen."""
