"""Whether Weights & Biases can be written to online: training and analysis say so alike."""

from __future__ import annotations

import netrc
import os


def wandb_is_online() -> bool:
    """Whether W&B has been given a key, by its variable or by `wandb login`, and was not told to stay offline."""
    if os.environ.get("WANDB_MODE", "online") != "online":
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
