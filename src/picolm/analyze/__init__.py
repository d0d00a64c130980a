"""Metrics on components of checkpoints: a snapshot and a specification come in, tidy rows go out."""
