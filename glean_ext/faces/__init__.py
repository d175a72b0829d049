"""Faces in photographs: found, aligned, restored and put back."""
