"""Copies of activations, gradients and updates of the very step, taken without disturbing it."""
