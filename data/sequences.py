"""Leave-one-out sequences, and their batches packed end to end."""

from collections.abc import Iterator
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
        return np.unique(users * (self.num_items + 1) + self.items[source])


@dataclass(frozen=True)
class Batch:
    """Packed inputs, (R, L) int64 each; see models.plain.Packing for the last three."""

    items: np.ndarray  # 0 in an empty slot
    positions: np.ndarray
    starts: np.ndarray
    tokens: np.ndarray


@dataclass(frozen=True)
class TrainingBatch(Batch):
    targets: np.ndarray  # (R, L), 0 in empty slots
    negatives: np.ndarray  # (R, L, K), 0 in empty slots
    num_users: int


@dataclass(frozen=True)
class RankingBatch(Batch):
    last: np.ndarray  # (B,) slot, counted through all rows, of each user's last input item
    targets: np.ndarray  # (B,)
    seen_offsets: np.ndarray  # (B + 1,)
    seen_items: np.ndarray  # (S,) those of user b from seen_offsets[b] on


def training_batches(
    data: Sequences,
    rng: np.random.Generator,
    batch_size: int,
    maxlen: int,
    num_negatives: int,
    in_rows: bool = False,
) -> Iterator[TrainingBatch]:
    """One epoch: every user once, shuffled; the last, partial batch is kept.

    A training sequence is cut to its last ``maxlen`` items, then shifted: its input is all but the
    last, its target all but the first. All tokens lie in one row without an empty slot, or
    ``in_rows`` of ``maxlen`` slots; that changes neither users nor negatives.
    """
    users = rng.permutation(data.trainable())
    for first in range(0, len(users), batch_size):
        batch = users[first : first + batch_size]
        kept = np.minimum(data.train_lengths[batch], maxlen)
        begin = data.offsets[batch] + data.train_lengths[batch] - kept
        packing = pack(kept - 1, maxlen, in_rows)
        targets = data.items[runs(begin + 1, kept - 1)]
        negatives = _draw_negatives(data, rng, np.repeat(batch, kept - 1), num_negatives)
        yield TrainingBatch(
            **vars(packing.batch(data.items[runs(begin, kept - 1)])),
            targets=packing.spread(targets),
            negatives=packing.spread(negatives),
            num_users=len(batch),
        )


def ranking_batches(
    data: Sequences, split: str, batch_size: int, maxlen: int, in_rows: bool = False
) -> Iterator[RankingBatch]:
    """Every evaluated user once, in order: the last ``maxlen`` items before the held-out one.

    ``split`` is ``valid`` (the last item but one is held out) or ``test`` (the last one).
    """
    held_out = {"valid": 2, "test": 1}[split]
    for first in range(0, len(data.evaluated), batch_size):
        batch = data.evaluated[first : first + batch_size]
        known = data.lengths[batch] - held_out
        kept = np.minimum(known, maxlen)
        begin = data.offsets[batch] + known - kept
        packing = pack(kept, maxlen, in_rows)
        yield RankingBatch(
            **vars(packing.batch(data.items[runs(begin, kept)])),
            last=packing.slots[np.cumsum(kept) - 1],
            targets=data.items[data.offsets[batch] + known].astype(np.int64),
            seen_offsets=np.concatenate([[0], np.cumsum(known)]),
            seen_items=data.items[runs(data.offsets[batch], known)].astype(np.int64),
        )


def runs(begin: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Indices of consecutive runs, end to end: begin[0], begin[0] + 1, ..., begin[1], ..."""
    ends = np.cumsum(lengths)
    return np.arange(lengths.sum()) + np.repeat(begin - (ends - lengths), lengths)


@dataclass(frozen=True)
class Packing:
    """Where the tokens of sequences lie in (R, L) slots."""

    shape: tuple[int, int]
    slots: np.ndarray  # (T,) of each token, counted through all rows
    positions: np.ndarray  # (T,)
    starts: np.ndarray  # (T,)

    def batch(self, items: np.ndarray) -> Batch:
        columns = np.tile(np.arange(self.shape[1]), self.shape[0])
        return Batch(
            items=self.spread(items),
            positions=self.spread(self.positions),
            starts=self.spread(self.starts, columns),  # an empty slot is its own start
            tokens=self.spread(np.arange(len(self.slots))),
        )

    def spread(self, values: np.ndarray, fill: np.ndarray | int = 0) -> np.ndarray:
        """(T, ...) to (R, L, ...) int64."""
        flat = np.empty((self.shape[0] * self.shape[1], *values.shape[1:]), dtype=np.int64)
        flat[:] = fill
        flat[self.slots] = values
        return flat.reshape(*self.shape, *values.shape[1:])


def pack(lengths: np.ndarray, maxlen: int, in_rows: bool) -> Packing:
    """Pack sequences end to end into one row, or into rows of ``maxlen`` slots."""
    if in_rows:
        row, column, num_rows = best_fit(lengths, maxlen)
        shape = (num_rows, maxlen)
    else:
        row, column = np.zeros_like(lengths), np.cumsum(lengths) - lengths
        shape = (1, int(lengths.sum()))
    return Packing(
        shape=shape,
        slots=runs(row * shape[1] + column, lengths),
        positions=runs(maxlen - lengths, lengths),
        starts=np.repeat(column, lengths),
    )


def best_fit(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Pack sequences into rows, longest first, each into the fullest row that still takes it.

    Returns (row of each, column at which each begins, number of rows).
    """
    rows = np.empty(len(lengths), dtype=np.int64)
    columns = np.empty(len(lengths), dtype=np.int64)
    rows_with_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    num_rows = 0
    for i in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[i])
        for room in range(length, capacity + 1):
            if rows_with_room[room]:
                row = rows_with_room[room].pop()
                break
        else:
            row, room, num_rows = num_rows, capacity, num_rows + 1
        rows[i], columns[i] = row, capacity - room
        rows_with_room[room - length].append(row)
    return rows, columns, num_rows


def _draw_negatives(
    data: Sequences, rng: np.random.Generator, users: np.ndarray, num_negatives: int
) -> np.ndarray:
    """(T, K): uniform over the items that each user has not had in training, by rejection."""
    base = np.repeat(users * (data.num_items + 1), num_negatives)
    drawn = np.empty(len(base), dtype=np.int64)
    pending = np.arange(len(base))
    had = data.had_in_training
    while len(pending):
        drawn[pending] = rng.integers(1, data.num_items + 1, size=len(pending))
        keys = base[pending] + drawn[pending]
        found = had[np.minimum(np.searchsorted(had, keys), len(had) - 1)] == keys
        pending = pending[found]
    return drawn.reshape(-1, num_negatives)
