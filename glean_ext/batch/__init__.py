"""Many files: which output for which input, and the stages they go through."""
