"""The diagnostics of an optimizer, compared with a direct computation."""

import numpy as np
import pytest
import torch

from models.sasrec import SASRec
from scripts.running.diagnostics import Diagnostics
from simba import Lion, SignSGD, Simba, SimbaCeqM
from tests.test_train import records, results_of

NUM_ITEMS, STEPS = 10, 4


def diagnose(make):
    """(diagnostics, (weight, gradient) before each step, final weight) of a small model's items.

    Many gradients are zero.
    """
    torch.manual_seed(0)
    model = SASRec(NUM_ITEMS, maxlen=3, hidden=4, ffn=4, blocks=1)
    optimizer = make(model.parameters())
    diagnostics = Diagnostics(model, optimizer, np.arange(NUM_ITEMS), every=1)
    diagnostics.start_epoch(1)
    seen = []
    for _ in range(STEPS):
        for p in model.parameters():
            p.grad = torch.randn_like(p) * (torch.rand_like(p) < 0.7)
        model.item.weight.grad[0] = 0
        model.item.weight.grad[1 : NUM_ITEMS // 2] = 0  # not in the batch
        weight = model.item.weight.detach()[1:].numpy().copy()
        seen.append((weight, model.item.weight.grad[1:].numpy().copy()))
        diagnostics.before_step()
        optimizer.step()
    after = model.item.weight.detach()[1:].numpy()
    return {k.removeprefix("why/"): v for k, v in diagnostics.summary().items()}, seen, after


def test_lion_agrees_with_itself_and_sign_sgd_has_no_memory():
    why, _, _ = diagnose(Lion)
    assert why["agreement/items"] == why["agreement/weights"] == 1
    assert 0 < why["memory/weights"] < 1
    why, seen, _ = diagnose(SignSGD)
    assert why["memory/items"] == why["without_gradient/weights"] == why["absent/5"] == 0
    moving = [np.mean(g[-2:] != 0) for _, g in seen]
    assert why["path/5"] == pytest.approx(np.mean(moving))
    assert not {"counter/items", "astray_s/items", "lags/items"} & why.keys()
    assert "outvoted/items" in why


def test_the_quantities_of_simba_counted_by_hand():
    lr, window, limit = 0.01, 10, 1
    why, seen, after = diagnose(lambda p: Simba(p, lr=lr, window_size=window, threshold=0.1))
    s, m = np.zeros((NUM_ITEMS, 4)), np.zeros((NUM_ITEMS, 4))
    expected = {"agreement": [], "memory": [], "without_gradient": [], "counter": []}
    moved, absent = np.zeros(NUM_ITEMS), np.zeros(NUM_ITEMS)
    for _, g in seen:
        remembers = abs(s) > limit
        direction = np.where(remembers, np.sign(s), np.sign(g))
        lion = np.where(0.9 * abs(m) > 0.1 * abs(g), np.sign(m), np.sign(g))
        expected["agreement"].append(direction == lion)
        expected["memory"].append(remembers)
        expected["without_gradient"].append((direction != 0) & (g == 0))
        expected["counter"].append(abs(s) / window)
        moved += (direction != 0).mean(1)
        absent += (direction != 0).mean(1) * (g == 0).all(1)
        s = np.clip(s + np.sign(g), -window, window)
        m = 0.99 * m + 0.01 * g
    for name, value in expected.items():
        assert why[f"{name}/items"] == pytest.approx(np.mean(value)), name
    total, count = sum(g for _, g in seen), sum(np.sign(g) for _, g in seen)
    nonzero = total != 0
    pairs = {"outvoted": (count, total), "astray_m": (m, total)}
    pairs |= {"astray_s": (s, total), "lags": (s, count)}
    for name, (a, b) in pairs.items():
        share = (np.sign(a) * np.sign(b) == -1)[nonzero].mean()
        assert why[f"{name}/items"] == pytest.approx(share), name
    assert 0 < why["outvoted/items"] < 1
    assert ((s == 0) & (count == 0) & nonzero).any()  # two zeros do not contradict each other
    net = abs(after - seen[0][0]).mean(1) / lr
    for i in range(5):
        fifth = slice(2 * i, 2 * i + 2)  # item i is the i-th least popular
        assert why[f"path/{i + 1}"] == pytest.approx(moved[fifth].mean() / STEPS)
        assert why[f"absent/{i + 1}"] == pytest.approx(absent[fifth].mean() / STEPS)
        assert why[f"net/{i + 1}"] == pytest.approx(net[fifth].mean() / STEPS, rel=1e-4)


def test_always_memory_moves_without_gradient():
    why, _, _ = diagnose(SimbaCeqM)
    assert why["without_gradient/weights"] > 0.1
    assert why["memory/weights"] <= 1 - 1 / STEPS  # the memory is zero at the first step


def test_diagnostics_change_no_result_and_need_an_optimizer_of_simba(train, tmp_path):
    assert train("optimizer=simba_m").returncode == 0
    ((_, ordinary),) = records(tmp_path / "results").items()
    done = train("optimizer=simba_m", "diagnose_every=2", f"results.root={tmp_path / 'diagnosed'}")
    assert done.returncode == 0, done.stderr
    ((_, diagnosed),) = records(tmp_path / "diagnosed").items()
    why = {k: v for k, v in diagnosed["history"][1].items() if k.startswith("why/")}
    assert "why/counter/items" in why
    assert not any("why" in key for key in diagnosed["history"][0])
    diagnosed["history"][1] = {k: v for k, v in diagnosed["history"][1].items() if k not in why}
    assert results_of(ordinary) == results_of(diagnosed)
    refused = train("optimizer=adam", "diagnose_every=2")
    assert refused.returncode == 2
    assert "only simba's own optimizers" in refused.stderr
