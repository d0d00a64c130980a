"""The run: configuration in, a run folder with sealed checkpoints out. `loop` is the place to start reading."""
