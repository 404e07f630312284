"""Our evaluation compared with an independent one in plain Python, from the lines of the file."""

import math

import numpy as np
import pytest
import torch

from data.batches import ranking_batches
from data.prepare import prepare
from data.sequences import Sequences
from models.ops import CPU
from models.packing import Packing, model_inputs
from models.ranking import metrics
from scripts.running.training import Training
from tests.test_joint import configs

KS = [1, 5, 10, 20, 50]


def brute_force(lines: list[str], scores_of, held_out: int) -> dict[str, float]:
    """The metrics of a leave-one-out evaluation of text lines ``user item item …``.

    An item is ranked below all others with an equal score. A user's earlier items are excluded.

    Args:
        scores_of: returns the model's score of every item after a list of items.
        held_out: the position of the held-out item from the end.
    """
    values: dict[str, list[float]] = {f"{m}@{k}": [] for m in ("HR", "NDCG") for k in KS}
    for line in lines:
        items = [int(item) for item in line.split()[1:]]
        if len(items) < 3:
            continue
        known, target = items[:-held_out], items[-held_out]
        scores = scores_of(known)
        others = set(range(1, len(scores) + 1)) - set(known) - {target}
        rank = 1 + sum(scores[item - 1] >= scores[target - 1] for item in others)
        for k in KS:
            values[f"HR@{k}"].append(1.0 if rank <= k else 0.0)
            values[f"NDCG@{k}"].append(1 / math.log2(rank + 1) if rank <= k else 0.0)
    return {name: sum(each) / len(each) for name, each in values.items()}


@pytest.mark.parametrize("form", ["sasrec", "sasrec_prenorm"])
def test_the_same_scores_give_the_same_metrics(tmp_path, form):
    rng = np.random.default_rng(0)
    lines = []
    for user in range(1, 151):  # some users are too short to be evaluated, some longer than maxlen
        items = rng.permutation(np.arange(1, 91))[: rng.integers(2, 25)]
        lines.append(" ".join(map(str, [user, *items])))
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(lines))
    prepared = prepare({"path": path, "sha256": None, "k_core": 0})
    training = Training(next(configs(form, None)), prepared.sequences, torch.device("cpu"))
    for epoch in range(1, 4):
        training.train_epoch(epoch)
    training.model.item.weight.data[5:8] = training.model.item.weight.data[5]  # ties
    model, maxlen = training.model, training.config["model"]["maxlen"]
    assert model.backend is CPU

    @torch.inference_mode()
    def scores_of(known: list[int]) -> list[float]:
        items = torch.tensor([known[-maxlen:]])
        slots = torch.arange(items.shape[1])[None]
        packing = Packing(
            positions=slots + maxlen - items.shape[1],
            starts=torch.zeros_like(slots),
            tokens=slots,
            layout="flat",
        )
        hidden = model.hidden_states(items, packing, slots[0, -1:])
        return (model.item_weight() @ hidden[0]).tolist()

    for split, held_out in (("valid", 2), ("test", 1)):
        ours = metrics(training.ranks(split), KS)
        assert ours == pytest.approx(brute_force(lines, scores_of, held_out), abs=1e-12)


@pytest.mark.parametrize("mask_seen", ["others", "all", "none"])
def test_repeats_are_ranked_as_the_config_says(tmp_path, mask_seen):
    """Compare with ranks computed user by user; the target of half of the users is a repeat."""
    lines = [
        f"{u} " + " ".join(str((u * 3 + i) % 11 + 1) for i in range(5)) + f" {(u * 3) % 11 + 1}"
        for u in range(1, 9)
    ]
    lines += [f"{u} " + " ".join(str((u + 2 * i) % 11 + 1) for i in range(5)) for u in range(9, 17)]
    path = tmp_path / "repeats.txt"
    path.write_text("\n".join(lines))
    data = prepare({"path": path}).sequences
    config = next(iter(configs("sasrec", None))) | {"mask_seen": mask_seen}
    training = Training(config, data, torch.device("cpu"))
    ranks = training.ranks("test")
    weight = training.model.item_weight().detach()
    (batch,) = ranking_batches(data, "test", 100, 10, training.model.backend.layout)
    inputs = model_inputs(training.tensors(batch.arrays()), batch.layout)
    with torch.inference_mode():
        scores = training.model.hidden_states(**inputs) @ weight.T
    for user, line in enumerate(lines):
        *history, target = (int(item) for item in line.split()[1:])
        seen = set(history)
        if mask_seen == "all" and target in seen:
            expected = data.num_items
        else:
            masked = seen - {target} if mask_seen != "none" else set()
            rivals = [i for i in range(1, data.num_items + 1) if i not in masked | {target}]
            expected = 1 + sum(
                bool(scores[user, i - 1] >= scores[user, target - 1]) for i in rivals
            )
        assert ranks[user] == expected


def test_an_unknown_mask_is_an_error():
    data = Sequences(np.array([1, 2, 3], dtype=np.int32), np.array([0, 3]), 3)
    with pytest.raises(
        ValueError, match="mask_seen must be 'none', 'others' or 'all', got 'other'"
    ):
        next(ranking_batches(data, "test", 10, 5, mask_seen="other"))
