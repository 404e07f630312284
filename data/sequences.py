"""Leave-one-out sequences: every user's items, end to end."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

MIN_SPLIT = 3  # items a user needs to give up one for valid and one for test


@dataclass(frozen=True)
class Sequences:
    """Every user's items in time order, end to end: user u has ``items[offsets[u]:offsets[u+1]]``.

    Users with fewer than three items are trained on and not evaluated.
    """

    items: np.ndarray  # (interactions,) int32, 1..num_items
    offsets: np.ndarray  # (users + 1,) int64
    num_items: int

    def check(self) -> None:
        """Compiled code indexes by these arrays unchecked; this is its check, once.

        Raises:
            ValueError: a wrong dtype or shape, or an index out of its range.
        """
        items, offsets = self.items, self.offsets
        dtypes = items.dtype == np.int32 and offsets.dtype == np.int64
        if not dtypes or items.ndim != 1 or offsets.ndim != 1:
            raise ValueError("items must be int32 and offsets int64, each of one dimension")
        ends = len(offsets) > 1 and offsets[0] == 0 and offsets[-1] == len(items)
        if not ends or (np.diff(offsets) < 1).any():
            raise ValueError("offsets must ascend from 0 to the number of interactions")
        if items.min() != 1 or items.max() != self.num_items:
            raise ValueError("items must be numbered from 1 to num_items")

    @property
    def num_users(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    @cached_property
    def train_lengths(self) -> np.ndarray:
        return np.where(self.lengths >= MIN_SPLIT, self.lengths - 2, self.lengths)

    @cached_property
    def evaluated(self) -> np.ndarray:
        """Users with a valid and a test item."""
        return np.flatnonzero(self.lengths >= MIN_SPLIT)

    def trainable(self) -> np.ndarray:
        """Users with at least one training target."""
        return np.flatnonzero(self.train_lengths >= 2)

    def num_targets(self, maxlen: int) -> int:
        """Training targets an epoch."""
        return int(np.maximum(np.minimum(self.train_lengths, maxlen) - 1, 0).sum())

    @cached_property
    def popularity(self) -> np.ndarray:
        """(num_items,) how often each item is in training, from item 1 on."""
        source = runs(self.offsets[:-1], self.train_lengths)
        return np.bincount(self.items[source], minlength=self.num_items + 1)[1:]

    @cached_property
    def had_in_training(self) -> np.ndarray:
        """Sorted keys ``user * (num_items + 1) + item`` of all training interactions."""
        users = np.repeat(np.arange(self.num_users), self.train_lengths)
        source = runs(self.offsets[:-1], self.train_lengths)
        keys = np.sort(users * (self.num_items + 1) + self.items[source])
        return keys[np.diff(keys, prepend=-1) > 0]  # np.unique is several times slower


def runs(begin: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Indices of consecutive runs, end to end: begin[0], begin[0] + 1, ..., begin[1], ..."""
    ends = np.cumsum(lengths)
    return np.arange(lengths.sum()) + np.repeat(begin - (ends - lengths), lengths)
