"""What users of the package call."""
