"""benchmarks.language on a tiny model: what it counts and what its table shows."""

import math

import pytest
import torch
import torch.distributed as dist

from benchmarks import language, text

CPU = torch.device("cpu")


@pytest.fixture
def alone():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.slow
def test_every_method_trains_and_votes_send_a_twentieth(alone):
    task = text.source_code(1, 32, 8, CPU)
    lines = [
        {"method": name, "lr": 3e-3, "curve": language.curve(task, name, 3e-3, 2, 10, 8)}
        for name in language.METHODS
    ]
    curves = {line["method"]: line["curve"] for line in lines}
    for points in curves.values():
        assert [point["tokens"] for point in points] == [256 * step for step in range(1, 11)]
        assert points[-1]["loss"] < points[0]["loss"] < 1.2 * math.log(256)
    gradients, votes = (curves[f"Lion, {kind}"] for kind in ("float32", "ternary votes"))
    assert gradients[-1]["bytes"] == pytest.approx(20 * votes[-1]["bytes"])
    table = language.table(lines)
    assert all(name in table for name in language.METHODS)


def test_held_out_files_are_not_trained_on():
    train, held_out = (bytes(part.numpy()) for part in text.sources())
    assert 0.02 < len(held_out) / (len(train) + len(held_out)) < 0.3
    assert b"def heappush(" in train + held_out
    assert (b"def heappush(heap, item)" in train) != (b"def heappush(heap, item)" in held_out)


def test_a_byte_sees_only_those_before_it():
    torch.manual_seed(0)
    model = text.LanguageModel(2, 64, 16)
    x = torch.randint(256, (1, 16))
    changed = x.clone()
    changed[0, 9] = (x[0, 9] + 1) % 256
    differs = (model(x) != model(changed)).any(-1).flatten()
    assert not differs[:9].any()
    assert differs[9:].all()
