"""Pico: hypothesis-driven research on small language models. Importing this loads no torch until something needs it."""
