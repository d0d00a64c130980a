"""Functions of one matrix or of two that return one number. `contract.py` says what they look like."""
