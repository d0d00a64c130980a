"""Sharing on the Hugging Face Hub: checkpoints published one by one, taken back verified, proved right."""
