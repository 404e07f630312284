"""Batches of sequences, packed end to end, with negatives drawn for training."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data.sequences import Sequences, runs


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
