"""Two small tasks other than SASRec, on data that packages contain."""

from collections.abc import Callable, Iterator
from pydoc_data.topics import topics  # pages of the manual that Python contains
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Task(NamedTuple):
    """A classification task. A part is (inputs, classes), for ``model`` and ``loss``."""

    model: Callable[[], nn.Module]
    batches: Callable[[int], Iterator[tuple[Tensor, Tensor]]]  # takes a seed; never ends
    valid: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    floor: float  # the loss of a model that predicts the frequencies of the classes


def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The cross-entropy of a batch, a scalar."""
    return F.cross_entropy(model(x).flatten(0, -2), y.flatten())


def digits() -> Task:
    """1,797 images of 8 x 8 pixels (scikit-learn) and an MLP with one hidden layer of 128."""
    from sklearn.datasets import load_digits

    images, answers = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    x = torch.from_numpy(images[order] / 16).float()
    y = torch.from_numpy(answers[order])
    train, valid, test = ((x[part], y[part]) for part in _parts(len(x)))

    def batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            for part in torch.randperm(len(train[0]), generator=generator).split(64):
                yield train[0][part], train[1][part]

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    return Task(model, batches, valid, test, frequency_loss(train[1], test[1]))


def characters(context: int = 32) -> Task:
    """The characters of Python's manual, and a transformer of two blocks with d = 32."""
    text = "\n".join(text for _, text in sorted(topics.items()))
    known, numbers = np.unique(np.array(list(text)), return_inverse=True)
    codes = torch.from_numpy(numbers)
    train, valid, test = (codes[part] for part in _parts(len(codes)))

    def held_out(part: Tensor) -> tuple[Tensor, Tensor]:
        whole = part[: 256 * context + 1]
        return whole[:-1].view(256, context), whole[1:].view(256, context)

    def batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        span = torch.arange(context)
        while True:
            first = torch.randint(len(train) - context - 1, (32, 1), generator=generator)
            yield train[first + span], train[first + span + 1]

    def model() -> nn.Module:
        return CharacterTransformer(len(known), context)

    return Task(model, batches, held_out(valid), held_out(test), frequency_loss(train, test))


class CharacterTransformer(nn.Module):
    """A transformer that predicts the next character."""

    def __init__(self, characters: int, context: int, size: int = 32) -> None:
        super().__init__()
        self.character = nn.Embedding(characters, size)
        self.position = nn.Parameter(0.02 * torch.randn(context, size))
        self.blocks = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(size, 4, 4 * size, 0.0, batch_first=True, norm_first=True),
            num_layers=2,
            enable_nested_tensor=False,
        )
        self.scores = nn.Linear(size, characters)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(context))

    def forward(self, x: Tensor) -> Tensor:
        x = self.character(x) + self.position
        return self.scores(self.blocks(x, mask=self.mask, is_causal=True))


def _parts(size: int) -> list[slice]:
    """The slices for training (80%), valid (10%) and test (10%)."""
    a, b = 8 * size // 10, 9 * size // 10
    return [slice(0, a), slice(a, b), slice(b, size)]


def frequency_loss(train: Tensor, test: Tensor) -> float:
    """The mean loss on ``test`` of predicting the frequencies of the classes in ``train``."""
    counts = torch.bincount(train, minlength=int(test.max()) + 1) + 1.0
    return F.nll_loss((counts / counts.sum()).log().expand(len(test), -1), test).item()


TASKS = {"digits": digits, "characters": characters}
