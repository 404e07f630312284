"""Batches of packed sequences for training and for ranking.

Sizes: R rows of L slots, T tokens (one item of one user's sequence each), K negatives per target,
B users.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np

from data.sequences import Sequences, ranges

Layout = Literal["rows", "flat"]  # models.packing has a copy: it cannot import data


@dataclass(frozen=True)
class Batch:
    """Packed input sequences. All arrays are int64.

    Args:
        layout: ``"flat"``: one row that holds all tokens and no empty slot. ``"rows"``: rows of
            maxlen slots, each filled with whole sequences by ``best_fit``.
        items: (R, L), 1..num_items; 0 in an empty slot.
        positions: (R, L), the index that the token would have if its sequence were left-padded to
            maxlen; 0 in an empty slot.
        starts: (R, L), the column at which the token's sequence starts. For an empty slot, it is
            the slot's own column.
        tokens: (R, L), the token's number in the batch, which is the same in both layouts; 0 in an
            empty slot.
    """

    layout: Layout
    items: np.ndarray
    positions: np.ndarray
    starts: np.ndarray
    tokens: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """The batch's arrays by name, the inputs of a model."""
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}


@dataclass(frozen=True)
class TrainingBatch(Batch):
    """Input sequences with the target and the negatives of each of their items.

    Args:
        targets: (R, L), the next item of the sequence; 0 in an empty slot.
        negatives: (R, L, K), items that are not among the user's training items; 0 in an empty
            slot.
        num_users: the number of users of the whole batch; ``part`` keeps it.
    """

    targets: np.ndarray
    negatives: np.ndarray
    num_users: int

    @property
    def num_targets(self) -> int:
        """The number of slots with a target."""
        return int(np.count_nonzero(self.targets))

    def part(self, rank: int, count: int) -> Self:
        """One of ``count`` parts of about equal size, each of whole sequences.

        Every sequence is in exactly one part. A token keeps its number, which selects its dropout
        noise. A part of a batch with few sequences may be empty.

        Args:
            rank: the index of the part, 0..count - 1.
        """
        size = self.items.size if self.layout == "flat" else len(self.items)
        first, last = (size * k // count for k in (rank, rank + 1))
        parts: dict[str, Any]
        if self.layout == "rows":  # rows hold whole sequences
            parts = {name: array[first:last] for name, array in self.arrays().items()}
        else:
            first, last = (k if k == size else int(self.starts[0, k]) for k in (first, last))
            parts = {name: array[:, first:last] for name, array in self.arrays().items()}
            parts["starts"] = parts["starts"] - first
        return replace(self, **parts)


@dataclass(frozen=True)
class QueryBatch(Batch):
    """The input sequences of B users. Items are scored as the next item of each sequence.

    Args:
        slots: (B,), ``row * L + column`` of each user's last input item.
    """

    slots: np.ndarray


@dataclass(frozen=True)
class HeldOut:
    """The held-out items of B users and the items excluded from their rankings.

    All arrays but ``rank_last`` are int64.

    Args:
        targets: (B,), the held-out item of each user.
        excluded_offsets: (B + 1,).
        excluded_items: (S,), the excluded items: those of user b are
            ``excluded_items[excluded_offsets[b]:excluded_offsets[b + 1]]``.
        rank_last: (B,) bool, whether the target is an earlier item that ``mask_seen=all`` excludes.
    """

    targets: np.ndarray
    excluded_offsets: np.ndarray
    excluded_items: np.ndarray
    rank_last: np.ndarray


@dataclass(frozen=True)
class RankingBatch(QueryBatch):
    """The input sequences of B users and their held-out items.

    Args:
        held_out: the items to rank.
    """

    held_out: HeldOut


def training_batches(
    data: Sequences,
    rng: np.random.Generator,
    batch_size: int,
    maxlen: int,
    num_negatives: int,
    layout: Layout = "flat",
) -> Iterator[TrainingBatch]:
    """The batches of one epoch: every trainable user once, in random order.

    The input is a user's last ``maxlen`` training items without the last one; the targets are the
    same items without the first one. The last batch may be smaller.

    Args:
        rng: shuffles the users and draws the negatives.
        batch_size: users per batch.
        num_negatives: K. Negatives are uniform over the items that the user does not have in
            training.
        layout: see ``Batch``. Users and negatives do not depend on it.

    Raises:
        ValueError: the layout is unknown.
    """
    users = rng.permutation(data.trainable())
    for first in range(0, len(users), batch_size):
        batch = users[first : first + batch_size]
        lengths = np.minimum(data.train_lengths[batch], maxlen)
        begin = data.offsets[batch] + data.train_lengths[batch] - lengths
        placement = pack_sequences(lengths - 1, maxlen, layout)
        targets = data.items[ranges(begin + 1, lengths - 1)]
        negatives = _draw_negatives(data, rng, np.repeat(batch, lengths - 1), num_negatives)
        yield TrainingBatch(
            **vars(placement.batch(data.items[ranges(begin, lengths - 1)])),
            targets=placement.scatter(targets),
            negatives=placement.scatter(negatives),
            num_users=len(batch),
        )


def ranking_batches(
    data: Sequences,
    split: str,
    batch_size: int,
    maxlen: int,
    layout: Layout = "flat",
    mask_seen: str = "others",
) -> Iterator[RankingBatch]:
    """The batches of one ranking: every evaluated user once, in ascending order.

    The input is a user's last ``maxlen`` items before the held-out one.

    Args:
        split: ``"valid"`` holds out the second-to-last item, ``"test"`` the last item.
        batch_size: users per batch.
        mask_seen: which of a user's earlier items are excluded from the ranking. ``"none"``: none.
            ``"others"``: all but the target. ``"all"``: all; a target that is an earlier item is
            ranked last.

    Raises:
        KeyError: the split is unknown.
        ValueError: the layout or ``mask_seen`` is unknown.
    """
    if mask_seen not in ("none", "others", "all"):
        raise ValueError(f"mask_seen must be 'none', 'others' or 'all', got {mask_seen!r}")
    from_the_end = {"valid": 2, "test": 1}[split]
    for first in range(0, len(data.evaluated), batch_size):
        batch = data.evaluated[first : first + batch_size]
        num_earlier = data.lengths[batch] - from_the_end
        lengths = np.minimum(num_earlier, maxlen)
        begin = data.offsets[batch] + num_earlier - lengths
        targets = data.items[data.offsets[batch] + num_earlier].astype(np.int64)
        excluded_items = data.items[ranges(data.offsets[batch], num_earlier)].astype(np.int64)
        is_target = np.repeat(targets, num_earlier) == excluded_items
        repeated = np.bincount(np.repeat(np.arange(len(batch)), num_earlier), is_target) > 0
        excluded = np.zeros_like(num_earlier) if mask_seen == "none" else num_earlier
        yield RankingBatch(
            **vars(query_batch(data.items[ranges(begin, lengths)], lengths, maxlen, layout)),
            held_out=HeldOut(
                targets=targets,
                excluded_offsets=np.concatenate([[0], np.cumsum(excluded)]),
                excluded_items=excluded_items[: excluded.sum()],
                rank_last=repeated & (mask_seen == "all"),
            ),
        )


def query_batch(
    items: np.ndarray, lengths: np.ndarray, maxlen: int, layout: Layout = "flat"
) -> QueryBatch:
    """The batch of given input sequences.

    Args:
        items: (T,), the sequences end to end, 1..num_items.
        lengths: (B,), the length of each sequence, 1..maxlen (not checked).
        layout: see ``Batch``.

    Raises:
        ValueError: the layout is unknown.
    """
    placement = pack_sequences(lengths, maxlen, layout)
    slots = placement.slots[np.cumsum(lengths) - 1]
    return QueryBatch(**vars(placement.batch(items)), slots=slots)


@dataclass(frozen=True)
class Placement:
    """The slot of each token of a batch.

    Args:
        layout: see ``Batch``.
        shape: (R, L).
        slots: (T,), ``row * L + column`` of each token.
        positions, starts: (T,), the values of ``Batch`` for each token.
    """

    layout: Layout
    shape: tuple[int, int]
    slots: np.ndarray
    positions: np.ndarray
    starts: np.ndarray

    def batch(self, items: np.ndarray) -> Batch:
        """The batch whose tokens are ``items`` (T,)."""
        columns = np.tile(np.arange(self.shape[1]), self.shape[0])
        return Batch(
            layout=self.layout,
            items=self.scatter(items),
            positions=self.scatter(self.positions),
            starts=self.scatter(self.starts, empty=columns),
            tokens=self.scatter(np.arange(len(self.slots))),
        )

    def scatter(self, values: np.ndarray, empty: np.ndarray | int = 0) -> np.ndarray:
        """(T, ...) -> (R, L, ...) int64: write each token's value into its slot.

        Args:
            empty: the value of empty slots, a scalar or (R * L,).
        """
        flat = np.empty((self.shape[0] * self.shape[1], *values.shape[1:]), dtype=np.int64)
        flat[:] = empty
        flat[self.slots] = values
        return flat.reshape(*self.shape, *values.shape[1:])


def pack_sequences(lengths: np.ndarray, maxlen: int, layout: Layout) -> Placement:
    """Assign slots to the tokens of sequences.

    Args:
        lengths: (B,), each at most ``maxlen``.

    Raises:
        ValueError: the layout is unknown.
    """
    if layout == "rows":
        row, column, num_rows = best_fit(lengths, maxlen)
        shape = (num_rows, maxlen)
    elif layout == "flat":
        row, column = np.zeros_like(lengths), np.cumsum(lengths) - lengths
        shape = (1, int(lengths.sum()))
    else:
        raise ValueError(f"the layout must be 'rows' or 'flat', got {layout!r}")
    return Placement(
        layout=layout,
        shape=shape,
        slots=ranges(row * shape[1] + column, lengths),
        positions=ranges(maxlen - lengths, lengths),
        starts=np.repeat(column, lengths),
    )


def best_fit(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Best-fit decreasing bin packing.

    Sequences are placed from the longest to the shortest, each into the fullest row that has room.

    Args:
        lengths: (B,), each at most ``capacity``.
        capacity: slots per row.

    Returns:
        (B,) the row of each sequence, (B,) the column of its first token, and the number of rows.
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
    """(T, K) negatives for the users (T,) of the tokens, redrawn until none is a training item.

    ``data.prepare`` makes sure that every user has a negative.
    """
    base = np.repeat(users * (data.num_items + 1), num_negatives)
    drawn = np.empty(len(base), dtype=np.int64)
    pending = np.arange(len(base))
    pairs = data.train_pairs
    while len(pending):
        drawn[pending] = rng.integers(1, data.num_items + 1, size=len(pending))
        candidates = base[pending] + drawn[pending]
        nearest = pairs[np.minimum(np.searchsorted(pairs, candidates), len(pairs) - 1)]
        pending = pending[nearest == candidates]
    return drawn.reshape(-1, num_negatives)
