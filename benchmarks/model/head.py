"""Ways to compute the output head and the loss, forward and backward: `python benchmarks/model/head.py`.

Processor time of one thread, so that a busy machine disturbs little; variants interleaved, medians. Each variant's gradients are
compared with float64 ones first: what is not exact is not in the race.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from picolm.model import loss as ours

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
VOCABULARY = 50304


def plain(hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden_ND, weight_VD).float(), labels_N, reduction="sum")


def checkpointed(chunk: int) -> Loss:
    def loss_of(hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor) -> Tensor:
        parts = zip(hidden_ND.split(chunk), labels_N.split(chunk), strict=True)
        checkpoint = torch.utils.checkpoint.checkpoint
        return torch.stack([checkpoint(plain, h, weight_VD, y, use_reentrant=False) for h, y in parts]).sum()

    return loss_of


def torch_chunked(chunk: int) -> Loss:
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=chunk)
    return lambda h, w, y: F.linear_cross_entropy(h, w, y, reduction="sum", options=options)


def ours_chunked(chunk: int) -> Loss:
    def loss_of(hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor) -> Tensor:
        ours.LOGITS_BUDGET_BYTES["cpu"] = 4 * VOCABULARY * chunk
        return ours.cross_entropy_sum(hidden_ND, weight_VD, labels_N)

    return loss_of


def gradients(loss_of: Loss, hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
    hidden_ND, weight_VD = hidden_ND.detach().requires_grad_(), weight_VD.detach().requires_grad_()
    loss_of(hidden_ND, weight_VD, labels_N).backward()
    return hidden_ND.grad, weight_VD.grad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", nargs="+", type=int, default=[96, 384])
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    variants: dict[str, Loss] = {"plain": plain, "plain, compiled": torch.compile(plain), "checkpointed 256": checkpointed(256)}
    variants |= {f"torch chunked {chunk}": torch_chunked(chunk) for chunk in (128, 512)}
    variants |= {f"ours {chunk}": ours_chunked(chunk) for chunk in (32, 64, 128, 256, 512, 1024)}
    for width in arguments.widths:
        generator = torch.Generator().manual_seed(0)
        hidden_ND = torch.randn(arguments.tokens, width, generator=generator)
        weight_VD = torch.randn(VOCABULARY, width, generator=generator) * 0.05
        labels_N = torch.randint(0, VOCABULARY, (arguments.tokens,), generator=generator)
        truth = gradients(plain, hidden_ND.double(), weight_VD.double(), labels_N)
        times: dict[str, list[float]] = {name: [] for name in variants}
        for name, loss_of in variants.items():
            found = gradients(loss_of, hidden_ND, weight_VD, labels_N)
            error = max(float((f - t).norm() / t.norm()) for f, t in zip(found, truth, strict=True))
            assert error < 1e-5, (name, error)
        del truth
        for _ in range(arguments.rounds):
            for name, loss_of in variants.items():
                started = time.process_time()
                gradients(loss_of, hidden_ND, weight_VD, labels_N)
                times[name].append(time.process_time() - started)
        base = statistics.median(times["plain"])
        for name, taken in times.items():
            median = statistics.median(taken)
            print(f"D={width:<4} {name:18} {median * 1e3:6.0f} ms  x{base / median:.2f} of plain", flush=True)


if __name__ == "__main__":
    main()
