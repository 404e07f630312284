"""How does the cost of an epoch grow with the data? ``make bench``, ``python -m benchmarks.scale``.

The datasets are ml-100k, Beauty, and synthetic ones with 2 to 50 times Beauty's users, items and
interactions. The synthetic ones draw their sequence lengths from Beauty's, and their items from a
Zipf distribution. The runs use one core, Lion and the note's model, each size in its own process.
Ranking is timed for 2,048 users; it holds one block of scores at a time, whatever the data's size.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from tqdm import tqdm

from benchmarks.report import FOLDER, machine, markdown, parser_of, write
from data.prepare import CONFIGS, prepare
from data.sequences import Sequences
from scripts.running.config import checked
from scripts.running.memory import peak_rss_mib
from scripts.running.training import Training

SIZES = ["ml-100k", "beauty", "beauty x 2", "beauty x 10", "beauty x 50"]
BATCHES = (512, 4096)
RANKED = 2048


def synthetic(like: Sequences, times: int) -> Sequences:
    """A dataset with ``times`` times the users and items.

    It has almost ``times`` times the interactions: an item that a user draws twice counts once.
    """
    rng = np.random.default_rng(times)
    users, items = times * like.num_users, times * like.num_items
    lengths = rng.choice(like.lengths, size=users)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    popularity = 1 / np.arange(1, items + 1) ** 0.6
    drawn = rng.choice(items, size=offsets[-1], p=popularity / popularity.sum())
    owner = np.repeat(np.arange(users), lengths)
    _, first = np.unique(owner * items + drawn, return_index=True)
    first.sort()
    distinct = np.bincount(owner[first], minlength=users)
    return Sequences(
        (rng.permutation(items)[drawn[first]] + 1).astype(np.int32),
        np.concatenate([[0], np.cumsum(distinct)]),
        items,
    )


def measure(size: str, batch: int) -> dict[str, float]:
    """Time one epoch, after a few steps of warm-up, and the ranking of ``RANKED`` users."""
    name, _, times = size.partition(" x ")
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        overrides = [f"data={name}", "optimizer=lion", f"batch_size={batch}"]
        config = checked(compose("train", overrides=overrides))
    data = prepare(config["data"]).sequences
    if times:
        data = synthetic(data, int(times))
    training = Training(config, data, torch.device("cpu"))
    few = dataclasses.replace(data, offsets=data.offsets[: 4 * batch + 1])
    training.data = few
    training.train_epoch(1)
    training.data = data
    start = time.perf_counter()
    training.train_epoch(2)
    epoch = time.perf_counter() - start
    training.data = dataclasses.replace(data, offsets=data.offsets[: RANKED + 1])
    start = time.perf_counter()
    training.ranks("test")
    ranking = time.perf_counter() - start
    targets = data.num_targets(config["model"]["maxlen"])
    return {
        "users": data.num_users,
        "items": data.num_items,
        "interactions": len(data.items),
        "targets": targets,
        "epoch_seconds": epoch,
        "targets_per_second": targets / epoch,
        "ranked_users_per_second": min(RANKED, data.num_users) / ranking,
        "peak_rss_mib": peak_rss_mib(),
    }


def draw(lines: list[dict[str, Any]]) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for batch, colour in zip(BATCHES, ("#0072B2", "#D55E00"), strict=True):
        points = [line for line in lines if line["batch"] == batch]
        targets = [p["targets"] for p in points]
        for axis, key in zip(axes, ("epoch_seconds", "peak_rss_mib"), strict=True):
            axis.plot(targets, [p[key] for p in points], "o-", color=colour, label=f"batch {batch}")
    beauty = next(line for line in lines if line["size"] == "beauty")
    ends = np.array(
        [min(line["targets"] for line in lines), max(line["targets"] for line in lines)]
    )
    linear = ends * beauty["epoch_seconds"] / beauty["targets"]
    axes[0].plot(ends, linear, "--", color="grey", label="linear in targets")
    axes[0].set(xscale="log", yscale="log", ylabel="seconds per epoch, one core")
    axes[1].axhline(8192, linestyle=":", color="grey", label="8 GiB")
    axes[1].set(xscale="log", ylim=(0, None), ylabel="peak resident memory, MiB")
    for axis in axes:
        axis.set_xlabel("training targets")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    for ending in ("png", "pdf"):
        figure.savefig(FOLDER / f"scale.{ending}", dpi=150)


def main() -> None:
    parser = parser_of("scale", __doc__)
    parser.add_argument("--one", nargs=2, metavar=("SIZE", "BATCH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], int(options.one[1]))))
        return
    lines = []
    for size, batch in tqdm([(s, b) for b in BATCHES for s in SIZES], unit="size"):
        command = [sys.executable, "-m", "benchmarks.scale", "--one", size, str(batch)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{size}: {done.stderr.strip().splitlines()[-1]}")
        lines.append({"size": size, "batch": batch, **json.loads(done.stdout)})
    head = "data, users, items, targets, batch, s per epoch, targets/s, users ranked/s, RSS MiB"
    rows = [head.split(", ")]
    rows += [
        [
            line["size"].replace(" x ", " × "),
            *(f"{line[k]:,}" for k in ("users", "items", "targets", "batch")),
            f"{line['epoch_seconds']:.1f}",
            *(f"{line[k]:,.0f}" for k in ("targets_per_second", "ranked_users_per_second")),
            f"{line['peak_rss_mib']:,.0f}",
        ]
        for line in lines
    ]
    write("scale", {"machine": machine(), "lines": lines}, markdown(rows), [])
    draw(lines)


if __name__ == "__main__":
    main()
