"""Recommend items with the weights that a run has kept (``save_best=true``)."""

import csv
import json
import math
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from data.batches import query_batch
from data.files import printable, quoted, shown
from data.histories import read_histories
from data.prepare import data_section, prepare
from models.contract import SequenceModel
from models.ops import backend_for
from models.packing import model_inputs
from models.ranking import block_size, top_items
from scripts.records.errors import UserError
from scripts.records.record import differences, identity, read_record
from scripts.running import weights
from scripts.running.run import pick_device
from scripts.running.training import build_model

Scored = list[tuple[str, float]]  # item ids with their scores, best first


class Recommender:
    """A trained model that takes and gives the item ids of its dataset.

    Args:
        path: the record of a finished run that kept its weights.
        overrides: changes of the config's ``data`` section, such as ``data.root=DIR``.

    Attributes:
        model: the model with the weights of the run's best epoch.

    Raises:
        UserError: it is not such a record, the data has changed since the training, or the model's
            class has.
        DataError: the dataset cannot be read.
    """

    def __init__(self, path: Path, overrides: Sequence[str] = ()) -> None:
        record = read_record(path)
        if record["status"] != "finished":
            raise UserError(
                f"{path}: the run is {record['status']}; only a finished one has weights"
            )
        self.device = pick_device("auto")
        state = weights.load(path, record, self.device)
        self.section = section_of(record, overrides)
        data = prepare(self.section)
        now = identity({"data": self.section, "optimizer": {}}, data.sha256)["data"]
        if changed := differences(record["config"]["data"], now):
            raise UserError(
                f"{data.path} differs from the data of the training ({'; '.join(changed)}); "
                "remove such overrides, or set data.path=PATH to the original file"
            )
        self.dataset, self.ids = record["dataset"], data.item_ids
        self.numbers = {item: number for number, item in enumerate(data.item_ids, 1)}
        section = record["config"]["model"]
        self.model: SequenceModel = build_model(section, len(self.ids)).to(self.device)
        self.model.backend = backend_for(self.device)
        try:
            self.model.load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{path}: {section['_target_']} has changed since the training: {reason}"
            ) from None

    def histories(self, path: Path) -> dict[str, list[str]]:
        """Each user's item ids in a file of the dataset's format, by user id.

        Raises:
            DataError: the file cannot be read.
        """
        return read_histories(path, self.section)

    def top(self, histories: Sequence[Sequence[str]], k: int) -> list[Scored]:
        """The k best items after each history, without the items in it; fewer if no more are left.

        Args:
            histories: item ids in time order, one or more.

        Raises:
            UserError: an item is not in the dataset.
        """
        numbers = [np.array([self.number(item) for item in items]) for items in histories]
        size = block_size(self.device)
        blocks = [numbers[first : first + size] for first in range(0, len(numbers), size)]
        return [scored for block in blocks for scored in self._top(block, k)]

    def number(self, item: str) -> int:
        """The number of an item id: 1..num_items.

        Raises:
            UserError: the item is not in the dataset; the error names the ids nearest to it.
        """
        if item not in self.numbers:
            near = get_close_matches(item, self.ids)
            hint = (
                f"nearest: {shown(near)}" if near else f"ids are, for example, {shown(self.ids, 3)}"
            )
            raise UserError(f"item {quoted(item)} is not in {self.dataset}; {hint}")
        return self.numbers[item]

    @torch.inference_mode()
    def _top(self, histories: Sequence[np.ndarray], k: int) -> list[Scored]:
        maxlen, layout = self.model.maxlen, self.model.backend.layout
        last = [items[-maxlen:] for items in histories]
        lengths = np.array([len(items) for items in last])
        batch = query_batch(np.concatenate(last), lengths, maxlen, layout)
        hidden = self.model.hidden_states(**model_inputs(self._tensors(**batch.arrays()), layout))
        excluded = self._tensors(
            excluded_items=np.concatenate(histories),
            excluded_offsets=np.cumsum([0, *map(len, histories)]),
        )
        k = min(k, len(self.ids))
        items, scores = top_items(hidden, self.model.item_weight(), **excluded, k=k)
        return [
            [(self.ids[i - 1], s) for i, s in zip(*pair, strict=True) if s > -math.inf]
            for pair in zip(items.tolist(), scores.tolist(), strict=True)
        ]

    def _tensors(self, **arrays: np.ndarray) -> dict[str, Tensor]:
        return {name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()}


def section_of(record: Mapping[str, Any], overrides: Sequence[str]) -> Mapping[str, Any]:
    """The ``data`` section that a record's command composes to, changed by ``overrides``.

    Raises:
        UserError: an override is not of the section.
        DataError: an override is wrong, or a config of the command is no longer there.
    """
    for override in overrides:
        if not override.lstrip("+~").startswith("data."):
            raise UserError(f"{override}: expected data.KEY=VALUE")
    words = shlex.split(record["command"])
    words = words[words.index("scripts.train") + 1 :]
    about_data = [
        word for word in words if re.match(r"[+~]*(data|experiment|hydra.searchpath)[.=]", word)
    ]
    folders = [w.partition("=")[2] for w in words if w.startswith("--config-dir=")]
    existing = [json.dumps(f"file://{Path(f).resolve()}") for f in folders if Path(f).is_dir()]
    searched = [f"hydra.searchpath=[{','.join(existing)}]"] if existing else []
    return data_section([*searched, *about_data, *overrides])


def write_csv(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """Print lines as CSV."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(lines)


def show(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """Print lines as a table that fits the terminal; NO_COLOR is honoured."""
    table = Table()
    for column in columns:
        table.add_column(column, justify="left" if column == "user" else "right")
    for line in lines:
        table.add_row(*(Text(printable(cell)) for cell in line))
    Console(width=None if sys.stdout.isatty() else 100).print(table)
