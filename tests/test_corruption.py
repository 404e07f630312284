"""Corrupted gradients: each kind does what its description says, and repeats by its seed."""

import pytest
import torch

from scripts.records.errors import UserError
from scripts.running.corruption import KINDS, SPIKE, Corruption

STRENGTHS = {
    "flip": 0.3,
    "noise": 0.5,
    "scramble": 1.5,
    "levels": 3,
    "top": 0.01,
    "spike": 0.02,
    "scale": 2,
}


def gradients() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    large = torch.randn(200, 100, generator=generator) * 1e-3
    large[:20] = 0
    return [large, torch.zeros(7)]


def corrupted(text: str, seed: tuple[int, ...] = (0, 1, 2)) -> list[torch.Tensor]:
    params = [torch.nn.Parameter(torch.zeros_like(g)) for g in gradients()]
    params.append(torch.nn.Parameter(torch.zeros(3)))  # without a gradient
    for p, g in zip(params, gradients(), strict=False):
        p.grad = g
    Corruption(text)(params, seed)
    assert params[-1].grad is None
    return [p.grad for p in params[:-1]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_random_numbers_follow_from_the_seed(kind):
    text = f"{kind}-{STRENGTHS[kind]}"
    ours, again = corrupted(text)[0], corrupted(text)[0]
    assert torch.equal(ours, again)
    others = [corrupted(text, seed)[0] for seed in [(1, 1, 2), (0, 2, 2), (0, 1, 3)]]
    alike = [torch.equal(ours, other) for other in others]
    assert alike == [kind in ("levels", "top")] * 3
    assert not torch.equal(ours, gradients()[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_of_zeros_gets_no_nan(kind):
    assert torch.equal(corrupted(f"{kind}-{STRENGTHS[kind]}")[1], torch.zeros(7))


def test_what_a_strength_means():
    (g, _), size = gradients(), 20_000
    moved, rms = g != 0, g.square().mean().sqrt()

    flipped = corrupted("flip-0.3")[0]
    assert torch.equal(flipped.abs(), g.abs())
    assert abs((flipped[moved] != g[moved]).float().mean() - 0.3) < 0.02

    added = corrupted("noise-0.5")[0] - g
    assert abs(added.std() / rms - 0.5) < 0.02
    assert abs(added.mean() / rms) < 0.02

    factors = (corrupted("scramble-1.5")[0][moved] / g[moved]).log()  # a changed sign gives NaN
    assert abs(factors.std() - 1.5) < 0.05

    rounded, largest = corrupted("levels-3")[0], g.abs().max()
    assert torch.allclose(rounded.unique(), torch.stack([-largest, 0 * largest, largest]))
    assert (rounded - g).abs().max() <= largest / 2

    kept = corrupted("top-0.01")[0]
    assert (kept != 0).sum() == 0.01 * size
    assert torch.equal(kept[kept != 0], g[kept != 0])
    assert g[kept == 0].abs().max() < kept[kept != 0].abs().min()

    struck = corrupted("spike-0.02")[0]
    spikes = struck[struck != g]
    assert torch.allclose(spikes.abs(), SPIKE * rms)
    assert abs(len(spikes) / size - 0.02) < 0.004
    assert 0.3 < (spikes > 0).float().mean() < 0.7

    factors = torch.stack(
        [corrupted("scale-2", (0, 1, step))[0][moved] / g[moved] for step in range(300)]
    ).log()
    assert factors.std(dim=1).max() < 1e-4, "one factor for all elements"
    assert abs(factors[:, 0].std() - 2) < 0.3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("flip", "the strength of flip must be from 0 to 1, got ''"),
        ("flip-1.5", "the strength of flip must be from 0 to 1, got '1.5'"),
        ("levels-4", "an odd integer >= 3"),
        ("levels-3.5", "an odd integer >= 3"),
        ("noise-nan", "the strength of noise must be a finite number >= 0, got 'nan'"),
        ("top-0", "above 0, at most 1"),
        ("melt-1", "KIND one of flip, noise"),
    ],
)
def test_a_wrong_value_is_told_in_one_line(text, reason):
    with pytest.raises(UserError, match=reason) as caught:
        Corruption(text)
    assert "\n" not in str(caught.value)
