"""Studies: a hypothesis declared beforehand, variants x seeds, comparison, verdict."""
