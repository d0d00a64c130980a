"""Optimisers and learning-rate schedules: parts, chosen by name in `training.optimization`."""
