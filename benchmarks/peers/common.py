"""Functions that the scripts of all peers use. They need only the standard library."""

import argparse
import json
import resource
import time
from importlib.metadata import version
from pathlib import Path

WARM_UP = 2  # steps


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, help="a S3-Rec file")
    parser.add_argument("--steps", type=int, default=9, help="training steps to time")
    parser.add_argument("--evaluations", type=int, default=1)
    return parser.parse_args()


def targets_of_steps(batches, step, steps):
    """Targets per second of each of ``steps`` training steps, with the loading of the batch.

    ``step`` takes a batch and returns its number of targets that are not padding.
    """
    speeds = []
    batches = iter(batches)
    for number in range(WARM_UP + steps):
        start = time.perf_counter()
        targets = step(next(batches))
        if number >= WARM_UP:
            speeds.append(targets / (time.perf_counter() - start))
    return speeds


def report(package, speeds, eval_seconds):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {
                "version": version(package),
                "targets_per_second": speeds,
                "eval_seconds": eval_seconds,
                "peak_rss_mib": peak,
            }
        )
    )
