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
        return np.unique(users * (self.num_items + 1) + self.items[source])


def ranges(begin: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The integers of several ranges, one range after the other: (sum of lengths,) int64.

    Args:
        begin, lengths: the first integer and the number of integers of each range.
    """
    ends = np.cumsum(lengths)
    return np.arange(lengths.sum()) + np.repeat(begin - (ends - lengths), lengths)
