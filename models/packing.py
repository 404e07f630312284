"""Packed batches: the sequences of several users share a row, so that few slots are empty."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

Layout = Literal["rows", "flat"]  # data.batches has a copy: it cannot import models


@dataclass(frozen=True)
class Packing:
    """The slots of the tokens of a batch: R rows of L slots.

    A token is one item of one user's sequence. A sequence lies in one row, in consecutive slots.

    Args:
        positions: (R, L) int64, the index that the token would have if its sequence were
            left-padded to the model's ``maxlen``: 0..maxlen - 1.
        starts: (R, L) int64, the column at which the token's sequence starts. For an empty slot, it
            is the slot's own column.
        tokens: (R, L) int64, the token's number in the batch, which is the same in both layouts.
            It selects the token's dropout noise. An empty slot may have any number.
            ``data.batches`` fills the empty slots of ``positions`` and ``tokens`` with 0.
        layout: ``"flat"``: one row (R = 1) of tokens with consecutive numbers, without empty slots.
            ``"rows"``: rows of L = maxlen slots; the slots after a row's last sequence are empty.

    Raises:
        ValueError: a flat packing has more than one row, or the layout is unknown.
    """

    positions: Tensor
    starts: Tensor
    tokens: Tensor
    layout: Layout

    def __post_init__(self) -> None:
        if self.layout not in ("rows", "flat"):
            raise ValueError(f"the layout must be 'rows' or 'flat', got {self.layout!r}")
        if self.layout == "flat" and len(self.positions) != 1:
            raise ValueError(f"a flat batch has one row, this one has {len(self.positions)}")

    def num_pads(self) -> Tensor:
        """(R, L) int64: the number of pads that left-padding puts before the token's sequence."""
        columns = torch.arange(self.positions.shape[1], device=self.positions.device)
        return self.positions - (columns - self.starts)


def model_inputs(tensors: Mapping[str, Tensor], layout: Layout) -> dict[str, Any]:
    """The keyword arguments of a model's ``loss`` or ``hidden_states``.

    Args:
        tensors: the tensors of a batch by name. ``positions``, ``starts`` and ``tokens`` become the
            argument ``packing``; every other tensor keeps its name.
        layout: the layout of the batch.
    """
    names = {field.name for field in fields(Packing)} - {"layout"}
    packing = Packing(**{name: tensors[name] for name in names}, layout=layout)
    others = {name: tensor for name, tensor in tensors.items() if name not in names}
    return {**others, "packing": packing}
