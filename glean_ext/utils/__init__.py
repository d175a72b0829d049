"""Files, images and arrays: what the other parts share."""
