"""Errors, registry and configuration: what every other package may use. No torch here."""
