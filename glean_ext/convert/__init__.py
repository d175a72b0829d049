"""StyleGAN2 banks of other implementations, made into this package's form."""

from .bank import Bank, convert_bank

__all__ = ["Bank", "convert_bank"]
