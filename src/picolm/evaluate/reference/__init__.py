"""Numbers quoted from publications, kept as data."""
