"""Keeps secrets and places at home: finds tokens before anything is sent, and takes them and local paths out of text."""

from __future__ import annotations

import getpass
import os
import platform
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from picolm.base.errors import PicoError

SECRET_FORMS = {
    "a Hugging Face token": r"\b(?:hf|api_org)_[A-Za-z0-9]{20,}",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{40,})",
    "a GitLab token": r"\bglpat-[A-Za-z0-9_-]{18,}",
    "an AWS key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a Google key": r"\bAIza[0-9A-Za-z_-]{35}",
    "an API key": r"\bsk-(?:[a-z]+-)?[A-Za-z0-9_]{20,}",
    "a Slack token": r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a password in an address": r"://[^/\s:@\"']+:[^/\s:@\"']+@",
}
NOT_IN_PROSE = ("a private key", "a password in an address")
"""Text of captured batches is somebody's prose: such forms are often examples there."""
PATTERNS = {kind: re.compile(form.encode()) for kind, form in SECRET_FORMS.items()}
SECRET_VARIABLE = re.compile(
    r"(TOKEN(?!I[SZ]|S)|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY)", re.IGNORECASE
)
SHORTEST_SECRET = 8
CHUNK_BYTES = 1 << 24
OVERLAP_BYTES = 4096
PATTERN_BYTES = 1 << 26
"""Binary files longer than this are searched for known secrets only, past their first part."""

ABSOLUTE_PATH = re.compile(r"(?<![\w.:/~-])~?(?:/[\w.+@-]+)+/?|\b[A-Za-z]:(?:\\{1,2}[\w.+@ -]+)+")
REMOVED = "[removed]"


def known_secrets() -> dict[str, str]:
    """Where a secret is known from -> its value: variables that are named like one, and the client's own store."""
    found = {
        f"the value of ${name}": value
        for name, value in os.environ.items()
        if SECRET_VARIABLE.search(name) and len(value) >= SHORTEST_SECRET and not value.startswith(("/", "~"))
    }
    from huggingface_hub import get_token

    token = get_token()
    return found | ({"the Hub token": token} if token else {})


def redacted(text: str) -> str:
    """`text` with everything that is or looks like a secret taken out: for messages, logs and errors."""
    for value in sorted(known_secrets().values(), key=len, reverse=True):
        text = text.replace(value, REMOVED)
    for pattern in PATTERNS.values():
        text = pattern.sub(REMOVED.encode(), text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")
    return text


def without_places(text: str) -> str:
    """`text` with absolute paths cut to their last name, and without the names of this machine and its user."""
    text = ABSOLUTE_PATH.sub(lambda found: _last_name(found[0]), text)
    for name, replacement in ((platform.node(), "host"), (_user(), "user")):
        if len(name) >= 4 and name not in ("root", "user"):
            text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", replacement, text)
    return text


def _last_name(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


def find_secret(content: bytes | Path) -> str | None:
    """What secret a file or text holds, such as `a GitHub token in line 3`; None if it holds none. Never the secret itself."""
    values = {kind: value.encode() for kind, value in known_secrets().items()}
    if isinstance(content, bytes):
        return _search(content, values, patterns=True)
    if content.suffix == ".parquet":
        return _search_table(content, values)
    position = 0
    with content.open("rb") as file:
        for piece in _pieces(file.read, CHUNK_BYTES):
            found = _search(piece, values, patterns=position < PATTERN_BYTES or content.suffix != ".safetensors")
            if found:
                return found
            position += len(piece)
    return None


def _pieces(read: object, size: int) -> Iterator[bytes]:
    """The file in pieces that overlap, so that a secret across a seam is seen."""
    tail = b""
    while piece := read(size):  # type: ignore[operator]
        yield tail + piece
        tail = piece[-OVERLAP_BYTES:]


def _search(content: bytes, values: dict[str, bytes], *, patterns: bool, passed_over: tuple[str, ...] = ()) -> str | None:
    for kind, value in values.items():
        place = content.find(value)
        if place >= 0:
            return f"{kind} in line {_line(content, place)}"
    if patterns:
        for kind, pattern in PATTERNS.items():
            match = None if kind in passed_over else pattern.search(content)
            if match:
                return f"what looks like {kind} in line {_line(content, match.start())}"
    return None


def _line(content: bytes, place: int) -> int:
    return content.count(b"\n", 0, place) + 1


def _search_table(path: Path, values: dict[str, bytes]) -> str | None:
    """Text columns are compressed on disk: they are searched row group by row group."""
    import pyarrow
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    columns = [
        field.name
        for field in file.schema_arrow
        if pyarrow.types.is_string(field.type) or pyarrow.types.is_large_string(field.type)
    ]
    for group in range(file.num_row_groups if columns else 0):
        table = file.read_row_group(group, columns=columns)
        for column in columns:
            text = "\n".join(value or "" for value in table[column].to_pylist())
            found = _search(text.encode(), values, patterns=True, passed_over=NOT_IN_PROSE)
            if found:
                return f"{found} of the column {column}"
    return None


def secret_setting(settings: Any, name: str = "") -> tuple[str, str] | None:
    """The first setting whose text holds a secret, and of what sort; None if there is none. `settings`: nested as in a file."""
    found = find_secret(settings.encode() if isinstance(settings, str) else repr(settings).encode())
    if found is None or isinstance(settings, str):
        return None if found is None else (name, found.rpartition(" in line ")[0])
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(settings, dict):
        inner = settings.items()
    elif isinstance(settings, list | tuple):
        inner = enumerate(settings)
    results = (secret_setting(value, f"{name}.{key}".removeprefix(".")) for key, value in inner)
    return next((result for result in results if result), None)


def refuse_secrets(files: dict[str, bytes | Path]) -> None:
    """PicoError naming the first file that holds a secret: before any of them is sent."""
    for name, content in files.items():
        found = find_secret(content)
        if found:
            text = name.startswith("learning_dynamics/")
            hint = "publish without that part: pico hub push RUN --to OWNER/NAME --parts weights,training_state"
            raise PicoError(
                f"{name} holds {found}: nothing was sent",
                hint if text else "take it out and revoke it; then `pico hub sync` goes on",
            )
