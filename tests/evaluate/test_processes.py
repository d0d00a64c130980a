from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from picolm.evaluate.processes import OneProcess, all_processes, share_of
from picolm.evaluate.scorer import Scorer
from picolm.evaluate.sharing import TokenSequence
from picolm.model.contract import build_model
from picolm.model.decoder import DecoderConfig


class Pretended(OneProcess):
    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count = rank, count


@pytest.mark.parametrize("batches", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_batch_counts_on_exactly_one_process_and_all_do_equally_many(batches, count):
    shares = [list(share_of(list(range(batches)), Pretended(rank, count))) for rank in range(count)]
    assert sorted(batch for share in shares for batch, counts in share if counts) == list(range(batches))
    assert len({len(share) for share in shares}) == 1


def score_in_process(rank: int, count: int, port: int, out: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=count)
    calls: list[int] = []
    model = small_model()
    model.register_forward_hook(lambda *_: calls.append(1))
    with Scorer(model, None, batch_tokens=64, processes=all_processes(torch.device("cpu"))) as scorer:
        found = scorer.log_probs(some_sequences())
    np.savez(f"{out}/{rank}.npz", found=found, calls=len(calls))
    torch.distributed.destroy_process_group()


def small_model() -> Any:
    config = DecoderConfig(
        vocab_size=50, max_seq_len=16, d_model=8, n_layers=1, attention_n_heads=2, attention_n_kv_heads=1, activation_hidden_dim=8
    )
    return build_model(config, torch.Generator().manual_seed(0))


def some_sequences() -> list[TokenSequence]:
    rng = np.random.default_rng(0)
    return [TokenSequence(rng.integers(0, 50, rng.integers(2, 17))) for _ in range(45)]


def test_two_processes_share_the_work_and_both_get_the_scores_of_one(tmp_path: Path):
    with Scorer(small_model(), None, batch_tokens=64) as scorer:
        alone = scorer.log_probs(some_sequences())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(score_in_process, args=(2, port, str(tmp_path)), nprocs=2)
    results = [np.load(tmp_path / f"{rank}.npz") for rank in range(2)]
    for result in results:
        assert (result["found"] == alone).all()
    assert results[0]["calls"] == results[1]["calls"] < 9
