"""Faces in photographs: detection, alignment, restoration and pasting them back."""
