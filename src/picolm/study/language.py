"""The built-in text of a study: made once, before the first run, so that a study needs nothing but its own folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from picolm.base.config import parse_settings
from picolm.base.errors import PicoError
from picolm.records.prepared import PreparedFolder
from picolm.study.config import LanguageConfig


def ensure_language(language: LanguageConfig | None, source: str, say: Callable[[str], None]) -> None:
    """Make the data if their folder is not there; PicoError if what is there was made otherwise."""
    if language is None:
        return
    folder = PreparedFolder(Path(language.folder))
    if folder.manifest_file.is_file():
        _check_made_alike(language, folder, source)
        return
    from picolm.data.demo import prepare_demo_data
    from picolm.data.synthetic import LanguageSettings

    say(f"making the text of the study in {language.folder}")
    prepare_demo_data(
        Path(language.folder),
        seed=language.seed,
        train_tokens=language.train_tokens,
        vocab_size=language.vocab_size,
        row_length=language.row_tokens + 1,
        val_tokens=language.val_tokens,
        pairs=language.pairs,
        settings=parse_settings(LanguageSettings, language.settings, f"{source}: language.settings"),
    )


def _check_made_alike(language: LanguageConfig, folder: PreparedFolder, source: str) -> None:
    manifest = folder.manifest()
    rows = int(manifest["splits"]["train"]["rows"])
    found = {"row_tokens": int(manifest["row_length"]) - 1, "vocab_size": int(manifest["padded_vocab_size"])}
    for key, value in found.items():
        declared = getattr(language, key)
        if value != declared:
            raise PicoError(
                f"{source}: language.{key} = {declared}, but the data in {language.folder} have {value}",
                "name another folder in language.folder, or delete this one",
            )
    there = rows * found["row_tokens"]
    if there < language.train_tokens * 0.5:
        raise PicoError(
            f"{source}: language.train_tokens = {language.train_tokens:,}, but {language.folder} has {there:,}",
            "name another folder in language.folder, or delete this one",
        )
