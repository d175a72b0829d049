"""Files, images and arrays: shared by the other parts of the package."""
