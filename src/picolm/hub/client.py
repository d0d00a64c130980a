"""The real client of the Hub, set up so that no request can wait for ever."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from picolm.base.errors import PicoError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ANSWER_SECONDS = 120.0
"""Longest silence on a connection. The Hub gives up on a commit after 60 seconds."""


def connect(*, answer_seconds: float = ANSWER_SECONDS, endpoint: str | None = None) -> HfApi:
    """A client with the person's own token and endpoint, and with patience that ends."""
    import huggingface_hub
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    disable_progress_bars()
    limit_silence(answer_seconds)
    warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
    return huggingface_hub.HfApi(endpoint=endpoint, library_name="picolm")


def limit_silence(seconds: float) -> None:
    """The client's own default is to wait for an answer without end."""
    import huggingface_hub
    from huggingface_hub.utils import _http

    default: Any = getattr(_http, "default_client_factory", None)
    if default is None:  # clients before 1.0 have limits of their own
        return

    def limited() -> Any:
        client = default()
        client.timeout = seconds
        return client

    huggingface_hub.set_client_factory(limited)


def has_token() -> bool:
    """Whether the environment or the client's own store holds a token."""
    from huggingface_hub import get_token

    return get_token() is not None


def require_token() -> None:
    """PicoError if there is nobody to publish as."""
    if not has_token():
        raise PicoError("there is no Hub token", "log in with `hf auth login`, or set HF_TOKEN; what is queued waits")
