from __future__ import annotations

from .series_example import all_series, batch, llama_series

__all__ = ["all_series", "batch", "llama_series"]
