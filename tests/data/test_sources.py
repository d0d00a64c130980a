"""What `data.dataset` may name: a folder, a mixture, a class of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy
import pytest

from picolm.base.config import dump_yaml, parse_settings, parse_yaml
from picolm.base.errors import PicoError
from picolm.data.contract import DataConfig
from picolm.data.loader import build_loader
from picolm.data.prepare import PrepareSettings, prepare
from picolm.data.sources import open_data

MINE = '''
import numpy


class CountedRows:
    def __init__(self, rows):
        self.rows, self.row_length, self.fingerprint = rows, 5, f"counted-{rows}"

    def read(self, rows):
        return numpy.repeat(rows[:, None], 5, axis=1)


class Counting:
    """Row n holds n, n, n, ..."""

    def __init__(self, *, rows: int = 10):
        self.name, self.fingerprint, self.manifest, self.tokenizer_file = "counting", f"counting-{rows}", {}, None
        self.rows = rows

    def split(self, name):
        return CountedRows(self.rows)
'''


def configure(text: str) -> DataConfig:
    return parse_settings(DataConfig, parse_yaml(text, "test"), "test")


def test_a_source_of_ones_own_is_named_by_its_file_and_gets_its_settings(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    config = configure("dataset: {name: ./mine.py:Counting, options: {rows: 6}}\ndataloader: {batch_size: 4}")
    loader = build_loader(config, open_data(config), seed=0)
    assert loader.batch_of_step(1).tolist() == [[row] * 5 for row in (4, 5, 0, 1)]
    wrong = configure("dataset: {name: ./mine.py:Counting, options: {row: 6}}")
    with pytest.raises(PicoError, match="row is not a setting") as caught:
        open_data(wrong)
    assert "rows" in caught.value.hint
    with pytest.raises(PicoError, match="has no `Countin`"):
        open_data(configure("dataset: {name: ./mine.py:Countin}"))


def test_a_mixture_gives_each_source_its_share_in_its_own_order(tmp_path: Path, jsonl: Callable[..., Path], texts, tokenizer):
    settings = PrepareSettings(max_seq_len=15)
    parts = [
        prepare(
            [str(jsonl(texts[start::2], f"{start}.jsonl"))], tokenizer=tokenizer, out=tmp_path / f"{start}", settings=settings
        )
        for start in (0, 1)
    ]
    config = configure(f"dataset: {{mix: {{{parts[0].path}: 3, {parts[1].path}: 1}}}}\ndataloader: {{batch_size: 500}}")
    source = open_data(config)
    loader = build_loader(config, source, seed=7)
    batches = numpy.concatenate([loader.batch_of_step(step).numpy() for step in range(2)])
    rows = [{tuple(row) for row in part.split("train").read(numpy.arange(part.split("train").rows)).tolist()} for part in parts]
    from_first = numpy.array([tuple(row) in rows[0] for row in batches.tolist()])
    assert from_first.sum() == 750
    first = parts[0].split("train")
    assert (batches[from_first][: first.rows] == first.read(numpy.arange(min(750, first.rows)))).all()
    other = open_data(configure(f"dataset: {{mix: {{{parts[0].path}: 1, {parts[1].path}: 1}}}}"))
    assert source.fingerprint != other.fingerprint
    with pytest.raises(PicoError, match="has no split `val`"):
        source.split("val")


def test_settings_survive_being_written_and_read():
    config = configure("dataset: {mix: {a: 0.5, b: 1}}\ndataloader: {shuffle: true}")
    assert configure(dump_yaml(config)) == config
    with pytest.raises(PicoError, match="shufle is not a setting"):
        configure("dataloader: {shufle: true}")
    with pytest.raises(PicoError, match="batch_size"):
        configure("dataloader: {batch_size: 0}")
