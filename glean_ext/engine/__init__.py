"""The training system on mmengine: runner, loop, optimiser wrapper, checkpoints and hooks."""
