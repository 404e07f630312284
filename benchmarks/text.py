"""The task of predicting the next byte of source code, and a transformer of any size for it."""

import sysconfig
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tasks import Task, frequency_loss
from benchmarks.voters import BATCH_MULTIPLE

ROWS = BATCH_MULTIPLE  # per batch
HELD_OUT = 64  # rows for validation, and as many for test


class LanguageModel(nn.Module):
    """A transformer that predicts the next byte: pre-norm, GELU, learned positions."""

    def __init__(self, layers: int, size: int, context: int) -> None:
        super().__init__()
        self.byte = nn.Embedding(256, size)
        self.position = nn.Parameter(0.02 * torch.randn(context, size))
        self.blocks = nn.ModuleList(Block(size) for _ in range(layers))
        self.norm = nn.LayerNorm(size)
        nn.init.normal_(self.byte.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        x = self.byte(x) + self.position
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.byte.weight.T


class Block(nn.Module):
    """Causal attention and a feed-forward layer, with heads of 32 columns."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.heads = size // 32
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.qkv, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.widen, self.narrow = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.narrow(F.gelu(self.widen(self.feed_forward_norm(x))))


def sources() -> tuple[Tensor, Tensor]:
    """The bytes of the files to train on and of those that are held out, uint8."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(p for p in folder.rglob("*.py") if "site-packages" not in p.parts)
    parts = [[p for i, p in enumerate(files) if (i % 10 == 0) == held] for held in (False, True)]
    train, held_out = (b"\n".join(path.read_bytes() for path in part) for part in parts)
    return torch.frombuffer(bytearray(train), dtype=torch.uint8), torch.frombuffer(
        bytearray(held_out), dtype=torch.uint8
    )


def source_code(
    layers: int = 4, size: int = 160, context: int = 64, device: torch.device | str = "cpu"
) -> Task:
    """Python's standard library in batches of ``ROWS`` rows of ``context`` bytes.

    Evenly spaced rows of the held-out files are for test; those halfway between, for validation.
    """
    train, held_out = (part.to(device) for part in sources())
    span = torch.arange(context, device=device)

    def rows(text: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        at = first.to(device) + span
        return text[at].long(), text[at + 1].long()

    def batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield rows(
                train,
                torch.randint(len(train) - context - 1, (ROWS, 1), generator=generator),
            )

    def evenly(offset: int) -> tuple[Tensor, Tensor]:
        last = len(held_out) - context - 2 - offset
        return rows(held_out, offset + torch.linspace(0, last, HELD_OUT).long().unsqueeze(1))

    test, valid = evenly(0), evenly(len(held_out) // (2 * HELD_OUT))
    model = partial(LanguageModel, layers, size, context)
    floor = frequency_loss(train.long().cpu(), test[1].flatten().cpu())
    return Task(lambda: model().to(device), batches, valid, test, floor)
