"""From raw images to a data set."""
