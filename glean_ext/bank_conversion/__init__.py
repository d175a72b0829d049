"""StyleGAN2 banks of other implementations, converted to this package's form."""

from glean_ext.bank_conversion.convert import Bank, convert_bank

__all__ = ["Bank", "convert_bank"]
