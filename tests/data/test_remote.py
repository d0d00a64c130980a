"""Data behind a URL: a server of our own that is busy, breaks off, disappears and lies."""

from __future__ import annotations

import logging
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy
import pytest

from picolm.base.errors import PicoError
from picolm.data import patience, remote
from picolm.data.contract import DataConfig
from picolm.data.index import fetch_all, index_shards
from picolm.data.loader import build_loader
from picolm.data.prepare import PreparedData, PrepareSettings, prepare
from picolm.data.sources import open_data, open_prepared, open_remote

pytest.importorskip("aiohttp")


class Server(ThreadingHTTPServer):
    """Serves a folder; `faults` are answered first, one per GET of a parquet file: a status, or `cut` to break off half-way."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.faults: list[int | str] = []
        self.gone = False
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        """Broken pipes are part of the game."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *arguments) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        if self.server.gone:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        path = self.server.folder / self.path.lstrip("/")
        fault = self.server.faults.pop(0) if with_body and path.suffix == ".parquet" and self.server.faults else None
        if with_body:
            self.server.asked.append(f"{path.name} {self.headers.get('Range', '')}".strip())
        if isinstance(fault, int) or not path.is_file():
            self.send_response(fault if isinstance(fault, int) else 404)
            self.send_header("Content-Length", "0")
            self.send_header("Retry-After", "3")
            self.end_headers()
            return
        content = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        first, last = (int(asked[1]), int(asked[2] or len(content) - 1)) if asked else (0, len(content) - 1)
        last = min(last, len(content) - 1)
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        body = content[first : last + 1] if with_body else b""
        if fault == "cut":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.wfile.write(body)


@pytest.fixture
def prepared(tmp_path: Path, jsonl: Callable[..., Path], texts, tokenizer) -> PreparedData:
    settings = PrepareSettings(max_seq_len=15, rows_per_shard=200, val_share=0.1)
    return prepare([str(jsonl(texts))], tokenizer=tokenizer, out=tmp_path / "data", settings=settings)


@pytest.fixture
def server(prepared: PreparedData) -> Iterator[Server]:
    served = Server(prepared.path)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    """Pauses that would have been made; the cache is a fresh folder."""
    made: list[float] = []
    monkeypatch.setenv("PICO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote.RemoteFolder.__init__, "__defaults__", (made.append, None))
    return made


def all_rows(data: PreparedData, split: str = "train") -> numpy.ndarray:
    rows = data.split(split)
    return rows.read(numpy.arange(rows.rows))


def test_remote_rows_are_the_local_rows_and_cached_ones_need_no_network(prepared, server: Server, pauses, monkeypatch):
    monkeypatch.setattr(patience, "ATTEMPTS", 2)
    data = open_remote(server.url)
    assert data.fingerprint == prepared.fingerprint
    assert (all_rows(data) == all_rows(prepared)).all()
    assert data.tokenizer_file is not None
    server.gone = True
    again = open_remote(server.url)
    assert (all_rows(again) == all_rows(prepared)).all()
    with pytest.raises(PicoError, match="cannot be reached"):
        all_rows(again, "val")


def test_two_runs_that_need_the_same_shards_at_once_fetch_each_once(prepared, server: Server, pauses):
    def read(results: list[numpy.ndarray]) -> None:
        results.append(all_rows(open_remote(server.url)))  # locks are held per open file: two of these are as two processes

    results: list[numpy.ndarray] = []
    readers = [threading.Thread(target=read, args=(results,)) for _ in range(3)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert len(results) == 3
    assert all((rows == all_rows(prepared)).all() for rows in results)
    whole = [asked for asked in server.asked if asked.split(" ")[-1].startswith("bytes=0-") or " " not in asked]
    assert sorted(set(whole)) == sorted(whole), "nothing was begun twice"
    assert pauses == []


def test_a_busy_server_is_asked_again_after_growing_pauses_and_that_is_said(prepared, server: Server, pauses, caplog):
    data = open_remote(server.url)
    server.faults = [503, 429]
    with caplog.at_level(logging.WARNING):
        assert (all_rows(data) == all_rows(prepared)).all()
    assert len(pauses) == 2
    assert pauses[0] in (1.0, 3.0)  # what the server asks for, where the file system hands it on
    assert "trying again" in caplog.text


def test_a_download_that_broke_off_goes_on_where_it_stopped(prepared, server: Server, pauses, monkeypatch):
    data = open_remote(server.url)
    shard = data.manifest["splits"]["train"]["shards"][0]
    source = (prepared.path / shard["name"]).read_bytes()
    partial = remote.remote_cache(server.url) / "downloads" / f"{shard['sha256'][:32]}.parquet.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(source[:1000])
    server.asked.clear()
    data.split("train").read(numpy.array([0]))
    assert not any("bytes=0-" in asked or asked.endswith(".parquet") for asked in server.asked), server.asked
    partial.with_suffix("").unlink(missing_ok=True)
    server.faults = ["cut"]
    assert (all_rows(data) == all_rows(prepared)).all()
    assert len(pauses) == 1


def test_what_is_gone_or_replaced_is_an_error_at_once(prepared, server: Server, pauses):
    data = open_remote(server.url)
    first, second = (prepared.path / shard["name"] for shard in data.manifest["splits"]["train"]["shards"][:2])
    first.write_bytes(second.read_bytes())
    with pytest.raises(PicoError, match="is not the file that the manifest lists"):
        data.split("train").read(numpy.array([0]))
    first.unlink()
    with pytest.raises(PicoError, match="does not exist"):
        data.split("train").read(numpy.array([0]))
    assert pauses == []
    with pytest.raises(PicoError, match=r"has no manifest\.json") as caught:
        open_remote(server.url + "/val")
    assert "pico data index" in caught.value.hint


def test_a_server_that_stays_busy_is_given_up(prepared, server: Server, pauses):
    data = open_remote(server.url)
    server.faults = [503] * 1000
    with pytest.raises(PicoError, match="the server answers 503"):
        data.split("train").read(numpy.array([0]))
    assert len(pauses) == patience.ATTEMPTS - 1


def test_the_local_copy_stays_within_its_bound_and_shards_come_ahead_of_need(prepared, server: Server, pauses):
    shard_bytes = 200 * 16 * 2
    bound = 3.5 * shard_bytes
    data = open_remote(server.url, cache_gigabytes=bound / 1e9)
    rows = data.split("train")
    assert len(rows.ends) > 6
    largest = 0
    for start in range(0, rows.rows, 50):
        rows.will_need(numpy.arange(start, min(start + 100, rows.rows)))
        assert (rows.read(numpy.array([start])) == prepared.split("train").read(numpy.array([start]))).all()
        largest = max(largest, sum(path.stat().st_size for path in data.cache.glob("*.uint16")))
    assert shard_bytes < largest <= bound
    assert not list((remote.remote_cache(server.url) / "downloads").glob("*.parquet"))
    fresh = open_remote(server.url, cache_gigabytes=1)
    shutil.rmtree(fresh.cache)
    ahead = fresh.split("train")
    ahead.will_need(numpy.arange(400))
    deadline = time.monotonic() + 10
    while len(list(fresh.cache.glob("*.uint16"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(list(fresh.cache.glob("*.uint16"))) == 3  # the two asked for and the one behind


def test_training_reads_remote_data_by_its_url(prepared, server: Server, pauses):
    config = DataConfig.model_validate({"dataset": {"name": server.url}, "dataloader": {"batch_size": 32}})
    loader = build_loader(config, open_data(config), seed=0)
    expected = all_rows(prepared)[: 32 * 10].reshape(10, 32, -1)
    assert [batch.tokens_BT.tolist() for batch in loader.prefetched(0, 10)] == expected.tolist()


def test_shards_made_elsewhere_get_a_manifest_here_or_over_there(prepared, server: Server, pauses, tmp_path: Path, tokenizer):
    shards = tmp_path / "elsewhere"
    for split, name in (("train", "data/part"), ("val", "validation/part")):
        for number, shard in enumerate(prepared.manifest["splits"][split]["shards"]):
            target = shards / f"{name}-{number:03d}.parquet"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(prepared.path / shard["name"], target)
    beside = index_shards(str(shards), out=tmp_path / "beside", tokenizer=tokenizer)
    assert (all_rows(beside) == all_rows(prepared)).all()
    inside = index_shards(str(shards), vocab_size=300)
    assert (all_rows(inside, "val") == all_rows(prepared, "val")).all()
    assert inside.tokenizer_file is None
    assert beside.split("train").fingerprint == inside.split("train").fingerprint == prepared.split("train").fingerprint
    with pytest.raises(PicoError, match="has a manifest already"):
        index_shards(str(shards), vocab_size=300)
    with pytest.raises(PicoError, match="the size of the vocabulary is not known"):
        index_shards(str(shards), out=tmp_path / "c")
    assert list(fetch_all(open_prepared(tmp_path / "beside"), ["train", "val"]))[-1] == 1.0


def test_a_name_that_is_neither_here_nor_on_the_hub_says_so(pauses):
    with pytest.raises(PicoError, match="there is no such folder, and not on the Hub either"):
        open_data(DataConfig.model_validate({"dataset": {"name": "nobody/nothing"}}))
