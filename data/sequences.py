"""Every user's items in time order, with a leave-one-out split: training, validation and test."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

MIN_SPLIT = 3  # a user needs this many items: one each for training, validation and test


@dataclass(frozen=True)
class Sequences:
    """The items of all users in one array: user u has ``items[offsets[u]:offsets[u + 1]]``.

    A user's last item is the test item, the second-to-last is the validation item, and the others
    are the training items. All items of a user with fewer than three are training items; such a
    user is not evaluated. A user with fewer than two training items is not trained on.

    Args:
        items: (interactions,) int32, 1..num_items; each user's in time order.
        offsets: (users + 1,) int64.
        num_items: number of different items.
    """

    items: np.ndarray
    offsets: np.ndarray
    num_items: int

    def check(self) -> None:
        """Check the arrays once, because compiled code indexes with them without bounds checks.

        Raises:
            ValueError: a dtype or shape is wrong, or an index is out of its range.
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
        """The sorted indices of the users that have a validation and a test item, int64."""
        return np.flatnonzero(self.lengths >= MIN_SPLIT)

    def trainable(self) -> np.ndarray:
        """The sorted indices of the users that have at least one training target, int64."""
        return np.flatnonzero(self.train_lengths >= 2)

    def num_targets(self, maxlen: int) -> int:
        """The training targets per epoch if each user's last ``maxlen`` training items are used."""
        return int(np.maximum(np.minimum(self.train_lengths, maxlen) - 1, 0).sum())

    @cached_property
    def popularity(self) -> np.ndarray:
        """(num_items,) int64: entry i - 1 is how often item i occurs among the training items."""
        source = ranges(self.offsets[:-1], self.train_lengths)
        return np.bincount(self.items[source], minlength=self.num_items + 1)[1:]

    @property
    def test_popularity(self) -> np.ndarray:
        """(evaluated users,) int64: how often each test item occurs among the training items."""
        return self.popularity[self.items[self.offsets[1:][self.evaluated] - 1] - 1]

    @cached_property
    def train_pairs(self) -> np.ndarray:
        """The distinct training interactions as sorted int64: ``user * (num_items + 1) + item``."""
        users = np.repeat(np.arange(self.num_users), self.train_lengths)
        source = ranges(self.offsets[:-1], self.train_lengths)
        keys = np.sort(users * (self.num_items + 1) + self.items[source])
        return keys[np.diff(keys, prepend=-1) > 0]  # np.unique is several times slower


def ranges(begin: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The concatenation of several integer ranges, (sum of lengths,) int64.

    Args:
        begin: the first integer of each range.
        lengths: the number of integers of each range.
    """
    ends = np.cumsum(lengths)
    return np.arange(lengths.sum()) + np.repeat(begin - (ends - lengths), lengths)
