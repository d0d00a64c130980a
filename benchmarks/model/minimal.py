"""The least code: a causal decoder with a chunked loss, for a lower bound that owes nothing to any library."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CHUNK_TOKENS = 256


class MinimalBlock(nn.Module):
    def __init__(self, width: int, hidden: int, heads: int, groups: int) -> None:
        super().__init__()
        self.heads, self.groups, self.head_width = heads, groups, width // heads
        self.norm_1, self.norm_2 = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, (heads + 2 * groups) * self.head_width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        parts = self.qkv(self.norm_1(x)).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
        q, k, v = parts.split((self.heads, self.groups, self.groups), dim=1)
        q, k = rotate(q, cosine, sine), rotate(k, cosine, sine)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(-2))
        gate, up = self.gate_up(self.norm_2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1).to(x.dtype)


class MinimalDecoder(nn.Module):
    def __init__(self, vocabulary: int, width: int, hidden: int, layers: int, heads: int, groups: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(MinimalBlock(width, hidden, heads, groups) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head_width = width // heads

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        frequency = 10000.0 ** (-torch.arange(0, self.head_width, 2) / self.head_width)
        angle = torch.arange(tokens.shape[1])[:, None] * frequency
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, angle.cos(), angle.sin())
        x = self.norm(x).flatten(0, 1)
        chunks = zip(x.split(CHUNK_TOKENS), labels.flatten().split(CHUNK_TOKENS), strict=True)
        return torch.stack([checkpoint(self.loss_of_chunk, h, y, use_reentrant=False) for h, y in chunks]).sum()

    def loss_of_chunk(self, hidden: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.head(hidden).float(), labels, reduction="sum")
