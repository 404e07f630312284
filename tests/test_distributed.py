"""Votes instead of gradients: what workers send, and what optimizers get."""

import os
import subprocess

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore

import simba
from simba.distributed import VoteState, pack, per_byte, unpack
from tests.forked import REPOSITORY, python


@pytest.mark.parametrize("workers", [2, 4])
def test_processes_that_vote_train_as_one_process_that_counts_the_votes(workers, tmp_path):
    command = [python(), "-m", "tests.vote_worker"]
    running = [
        subprocess.Popen(
            [*command, str(rank), str(workers), str(tmp_path / "store")],
            cwd=REPOSITORY,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(workers)
    ]
    try:
        for process in running:
            out, error = process.communicate(timeout=240)
            assert process.returncode == 0, error
            assert out.split()[-1] == "check_errors"
    finally:
        for process in running:
            process.kill()


@given(st.data(), st.integers(2, 256), st.integers(0, 30))
def test_digits_are_packed_as_many_to_a_byte_as_fit(data, levels, size):
    digits = data.draw(
        st.lists(
            st.lists(st.integers(0, levels - 1), min_size=size, max_size=size),
            min_size=2,
            max_size=2,
        )
    )
    digits = torch.tensor(digits, dtype=torch.uint8)
    packed = pack(digits, levels)
    assert levels ** per_byte(levels) <= 256 < levels ** (per_byte(levels) + 1)
    assert packed.shape == (2, -(-size // per_byte(levels)))
    assert torch.equal(unpack(packed, levels, size), digits)


@pytest.mark.parametrize("levels", range(2, 257))
def test_every_byte_is_unpacked(levels):
    used = levels ** per_byte(levels)
    packed = torch.arange(used, dtype=torch.int32).to(torch.uint8).view(-1, 1)
    assert torch.equal(pack(unpack(packed, levels, per_byte(levels)), levels), packed)


@pytest.fixture
def alone():
    """This process as the only worker."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def many():
    """128 workers in torch's process group for tests, which sends nothing."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=128)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("levels", [2, 3])
@pytest.mark.parametrize("reduction", ["majority", "mean"])
def test_one_worker_decides_its_own_votes_and_sends_nothing(alone, levels, reduction):
    state = VoteState([], levels, reduction)
    votes = torch.tensor([1.0, -1.0, 1.0]) if levels == 2 else torch.tensor([1.0, 0.0, -1.0])
    assert torch.equal(state.reduce(votes.to(torch.int8), votes.dtype), votes)
    assert state.bytes_sent == 0


def test_a_ternary_vote_is_that_of_ternary_lion(alone):
    """A gradient of votes has the scale 1, so TernaryLion votes on it as the workers did."""
    p = nn.Parameter(torch.zeros(4))
    g = torch.tensor([4.0, -2.0, 0.1, 0.0])
    scale = (g.square().sum() / g.abs().sum()).item()
    q = VoteState([p]).vote(p, g)
    assert q.tolist() == [1.0, -1.0, 0.0, 0.0]
    assert abs(g[1]) > scale / 2 > abs(g[2])
    steps = []
    for gradient in (g, q.float()):
        p = nn.Parameter(torch.zeros(4))
        optimizer = simba.TernaryLion([p], lr=1.0)
        for _ in range(3):
            p.grad = gradient.clone()
            optimizer.step()
        steps.append((p.detach(), optimizer.state[p]["sign_counts"]))
    assert all(map(torch.equal, *steps))
    assert optimizer.state[p]["scale"] == 1


def test_a_binary_vote_is_right_on_average(alone):
    p = nn.Parameter(torch.zeros(2000))
    state = VoteState([p], levels=2, error_feedback=False)
    g = torch.linspace(-2, 2, 2000)
    x = g / (g.square().sum() / g.abs().sum())
    votes, rounds = torch.zeros_like(g), 400
    for state.step in range(rounds):
        votes += state.vote(p, g)
    error = votes / rounds - x.clamp(-1, 1)
    assert error.abs().max() < 5 / rounds**0.5
    assert error.mean().abs() < 5 / (rounds * 2000) ** 0.5


def test_workers_steps_and_parameters_have_their_own_noise(alone):
    params = [nn.Parameter(torch.zeros(400)) for _ in range(2)]
    state = VoteState(params, levels=2, error_feedback=False)
    seen = []
    for state.rank in range(2):
        for state.step in range(2):
            seen += [state.vote(p, torch.zeros(400)).float() for p in params]
    for i, a in enumerate(seen):
        for b in seen[:i]:
            assert abs((a * b).mean()) < 5 / 20


@pytest.mark.parametrize("levels", [2, 3])
def test_error_feedback_adds_up_to_the_gradient(alone, levels):
    p = nn.Parameter(torch.zeros(3))
    state, total = VoteState([p], levels, error_feedback=True), torch.zeros(3)
    g = torch.tensor([1.0, 0.3, -0.2])
    for state.step in range(200):
        total += state.vote(p, g)
    x = g / (g.square().sum() / g.abs().sum())
    assert torch.allclose(total / 200, x.clamp(-1, 1), atol=2.01 / 200)
    before = state.errors[0].clone()
    if levels == 3:
        assert state.vote(p, torch.zeros(3)).tolist() == [0.0, 0.0, 0.0]
        assert torch.equal(state.errors[0], before)


def test_a_state_of_votes_is_a_copy_and_fits_its_parameters(alone):
    p = nn.Parameter(torch.zeros(4))
    state = VoteState([p])
    state.vote(p, torch.randn(4))
    saved = state.state_dict()
    before = saved["errors"][0].clone()
    state.vote(p, torch.randn(4))
    assert torch.equal(saved["errors"][0], before)
    on_meta = VoteState([nn.Parameter(torch.zeros(4, device="meta"))])
    on_meta.load_state_dict(saved)
    assert on_meta.errors[0].device.type == "meta"
    for size in (3, 6):
        with pytest.raises(ValueError, match="4 errors of parameter 0, which does not fit"):
            VoteState([nn.Parameter(torch.zeros(size))]).load_state_dict(saved)
    with pytest.raises(ValueError, match="does not fit"):
        VoteState([]).load_state_dict(saved)


def test_nan_and_infinity(alone):
    p = nn.Parameter(torch.zeros(4))
    q = VoteState([p]).vote(p, torch.tensor([float("nan"), float("inf"), -float("inf"), 1.0]))
    assert q.tolist() == [0.0, 1.0, -1.0, 1.0]


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"levels": 4}, "levels must be 2 or 3, got 4"),
        ({"reduction": "sum"}, "reduction must be 'majority' or 'mean', got 'sum'"),
        ({"spacing": 0}, "spacing must be a finite number > 0, got 0"),
        ({"seed": -1}, "seed must be an integer .*, got -1"),
    ],
)
def test_refuses_invalid_settings(alone, settings, error):
    with pytest.raises(ValueError, match=f"^VoteState: {error}$"):
        VoteState([], **settings)


def test_a_mean_of_too_many_workers_is_refused(many):
    VoteState([], levels=2, reduction="mean")
    VoteState([], levels=3, reduction="majority")
    with pytest.raises(ValueError, match=r"^VoteState: reduction='mean' takes at most 127 .*$"):
        VoteState([], levels=3, reduction="mean")
