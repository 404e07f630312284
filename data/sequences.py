"""Every user's items in time order, split leave-one-out into training, valid and test."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

MIN_SPLIT = 3  # items that a user needs so that one is held out for valid and one for test


@dataclass(frozen=True)
class Sequences:
    """The items of all users in one array: user u has ``items[offsets[u]:offsets[u + 1]]``.

    A user's last item is for test, the last but one for valid, the others are for training. Users
    with fewer than three items are trained on and not evaluated.

    Args:
        items: (interactions,) int32, 1..num_items; each user's in time order.
        offsets: (users + 1,) int64.
        num_items: number of different items.
    """

    items: np.ndarray
    offsets: np.ndarray
    num_items: int

    def check(self) -> None:
        """Check the arrays once, for compiled code that indexes by them unchecked.

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
        """(users,) int64, the number of each user's items."""
        return np.diff(self.offsets)

    @cached_property
    def train_lengths(self) -> np.ndarray:
        """(users,) int64, the number of each user's training items."""
        return np.where(self.lengths >= MIN_SPLIT, self.lengths - 2, self.lengths)

    @cached_property
    def evaluated(self) -> np.ndarray:
        """Sorted indices of the users with a valid and a test item."""
        return np.flatnonzero(self.lengths >= MIN_SPLIT)

    def trainable(self) -> np.ndarray:
        """Sorted indices of the users with at least one training target."""
        return np.flatnonzero(self.train_lengths >= 2)

    def num_targets(self, maxlen: int) -> int:
        """Training targets per epoch, from the last ``maxlen`` training items of each user."""
        return int(np.maximum(np.minimum(self.train_lengths, maxlen) - 1, 0).sum())

    @cached_property
    def popularity(self) -> np.ndarray:
        """(num_items,) how often each item occurs in training, from item 1 on."""
        source = ranges(self.offsets[:-1], self.train_lengths)
        return np.bincount(self.items[source], minlength=self.num_items + 1)[1:]

    @cached_property
    def train_pairs(self) -> np.ndarray:
        """The sorted set of training interactions, each as ``user * (num_items + 1) + item``."""
        users = np.repeat(np.arange(self.num_users), self.train_lengths)
        source = ranges(self.offsets[:-1], self.train_lengths)
        keys = np.sort(users * (self.num_items + 1) + self.items[source])
        return keys[np.diff(keys, prepend=-1) > 0]  # np.unique is several times slower


def ranges(begin: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The integers of several ranges, one range after the other: (sum of lengths,) int64.

    Args:
        begin, lengths: the first integer and the number of integers of each range.
    """
    ends = np.cumsum(lengths)
    return np.arange(lengths.sum()) + np.repeat(begin - (ends - lengths), lengths)
