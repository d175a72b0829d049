"""Videos: read, restored frame by frame, written with what belongs to them."""
