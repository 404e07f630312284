"""Time our training and ranking on one dataset; prints one line of JSON."""

import argparse
import json
import time

import torch

started = time.time()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("overrides", nargs="*", help="overrides of configs/train.yaml")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=2)
    parser.add_argument(
        "--spawned", type=float, default=started, help="Unix time at which the command was started"
    )
    options = parser.parse_args()

    from hydra import compose, initialize_config_dir

    from data.prepare import CONFIGS, prepare
    from scripts.running.config import checked
    from scripts.running.memory import peak_rss_mib
    from scripts.running.provenance import commit
    from scripts.running.training import Training

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = checked(compose("train", overrides=options.overrides))
    data = prepare(config["data"]).sequences
    training = Training(config, data, torch.device("cpu"))
    take = training.optimizer.step
    first: list[float] = []

    def step() -> None:
        take()
        if not first:
            first.append(time.time() - options.spawned)

    training.optimizer.step = step
    training.train_epoch(1)  # loads compiled code and allocates memory
    targets = data.num_targets(config["model"]["maxlen"])
    speeds, seconds = [], []
    for epoch in range(options.epochs):
        start = time.perf_counter()
        training.train_epoch(2 + epoch)
        speeds.append(targets / (time.perf_counter() - start))
    for _ in range(options.evaluations):
        start = time.perf_counter()
        training.ranks("test")
        seconds.append(time.perf_counter() - start)
    print(
        json.dumps(
            {
                "version": (commit() or "no commit")[:9],
                "targets_per_second": speeds,
                "eval_seconds": seconds,
                "peak_rss_mib": peak_rss_mib(),
                "first_step_seconds": first[0],
            }
        )
    )


if __name__ == "__main__":
    main()
