"""Text that comes from outside (names of runs, parts, options, generated words), made visible before anything shows it."""

from __future__ import annotations

import unicodedata
from typing import Any

import pandas

_UNSAFE_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def visible_text(text: str) -> str:
    """`text` with every control, formatting and unassigned character written as its code point; line ends and tabs stay."""
    if text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in _UNSAFE_CATEGORIES:
        return character
    return f"\\u{{{ord(character):x}}}"


def cleaned(value: Any) -> Any:
    """A JSON value with every text in it made visible."""
    if isinstance(value, str):
        return visible_text(value)
    if isinstance(value, dict):
        return {visible_text(str(key)): cleaned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    return value


def clean_frame(frame: pandas.DataFrame) -> pandas.DataFrame:
    """A table with its column names and text cells made visible."""
    frame = frame.rename(columns={name: visible_text(str(name)) for name in frame.columns})
    for name in frame.columns:
        if not (pandas.api.types.is_numeric_dtype(frame[name]) or pandas.api.types.is_bool_dtype(frame[name])):
            frame[name] = _clean_column(frame[name])
    return frame


def _clean_column(column: pandas.Series[Any]) -> pandas.Series[Any]:
    translated = {value: cleaned(value) for value in column.dropna().unique() if isinstance(value, str)}
    if all(old == new for old, new in translated.items()):
        return column
    return column.map(lambda value: translated.get(value, value) if isinstance(value, str) else value)
