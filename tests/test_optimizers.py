"""Tests of all optimizers in the table, of exact relations between variants, and of the listing."""

import math
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
import yaml
from llvmlite.binding import get_host_cpu_features
from numba import float64, int64
from numba.core.caching import NullCache
from numba.core.extending import _Intrinsic
from numba.types import UniTuple
from torch import Tensor

import simba
from simba import directions, presets
from simba.backends import eager, numba_cpu
from tests.conftest import REPOSITORY
from tests.optimizers import OPTIMIZERS, every_implementation, every_optimizer


def gradients(steps: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Noise around a drift, with exact zeros, so that every branch of every variant is reached."""
    generator = torch.Generator().manual_seed(seed)
    drift = torch.randn(257, generator=generator)
    noise = torch.randn(steps, 257, generator=generator)
    keep = torch.rand(steps, 257, generator=generator) > 0.2
    return list(((drift + 2 * noise) * keep).to(dtype))


def start(seed: int = 1) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.randn(257, generator=torch.Generator().manual_seed(seed)))


def path(optimizer_class, grads: list[Tensor], **kwargs) -> list[Tensor]:
    """The parameter after each step."""
    p = start()
    optimizer = optimizer_class([p], **kwargs)
    seen = []
    for g in grads:
        p.grad = g.clone()
        optimizer.step()
        seen.append(p.detach().clone())
    return seen


def assert_same(a: list[Tensor], b: list[Tensor]) -> None:
    for step, (x, y) in enumerate(zip(a, b, strict=True)):
        assert torch.equal(x, y), f"step {step}"


def listing(p: Tensor, s: Tensor, g: Tensor, lr: float, wd: float, w: int, gamma: float) -> None:
    """A step of the note's Simba, by its listing: int16 counter, integer threshold, strict >."""
    p.mul_(1 - lr * wd)
    direction = torch.where(s.abs() > int(w * gamma), s.sign(), g.sign())
    p.add_(direction, alpha=-lr)
    s.add_(g.sign().to(torch.int16)).clamp_(-w, w)


@pytest.mark.parametrize("wd", [0.0, 0.5])
def test_simba_is_the_notes_listing_bit_for_bit(wd):
    p = start().detach()
    s = torch.zeros(257, dtype=torch.int16)
    grads = gradients(600)
    ours = path(simba.Simba, grads, weight_decay=wd)
    for step, g in enumerate(grads):
        listing(p, s, g, 1e-4, wd, 128, 0.1)
        assert torch.equal(ours[step], p), f"step {step}"
    assert (s.abs() == 128).any(), "the counter never saturated: the test is too short"


@pytest.mark.parametrize(
    ("cls", "kwargs"),
    [
        (simba.Lion, {"betas": (0.0, 0.99)}),
        (simba.Simba, {"threshold": 1.0}),
        (simba.SimbaM, {"threshold": 1.0}),
        (simba.SimbaEq1, {"betas": (0.0, 0.99)}),
    ],
)
def test_limits_are_sign_sgd(cls, kwargs):
    grads = gradients(200)
    assert_same(
        path(cls, grads, weight_decay=0.1, **kwargs),
        path(simba.SignSGD, grads, weight_decay=0.1),
    )


def test_eq4_is_the_notes_inequality():
    p, s = start().detach(), torch.zeros(257, dtype=torch.int16)
    grads = gradients(300)
    for g, ours in zip(grads, path(simba.SimbaEq4, grads), strict=True):
        exceeds = s.abs() / 128 > 1 / 9 * torch.sign(abs(g))
        p.add_(torch.where(exceeds, s.sign(), g.sign()), alpha=-1e-4)
        s.add_(g.sign().to(torch.int16)).clamp_(-128, 128)
        assert torch.equal(ours, p)


def test_eq4_is_simba_where_there_are_gradients():
    grads = [g + 1e-3 for g in gradients(200)]
    assert all((g != 0).all() for g in grads)
    assert_same(path(simba.SimbaEq4, grads, threshold=0.1), path(simba.Simba, grads))


def test_variants_differ():
    one = {entry.cls: entry for entry in OPTIMIZERS.values()}
    ends = {cls: path(cls, gradients(200), **entry.hparams)[-1] for cls, entry in one.items()}
    for a in ends:
        for b in ends:
            assert a == b or not torch.equal(ends[a], ends[b]), (a, b)


def test_c_eq_m_is_lions_limit():
    grads = [g + 1e-3 for g in gradients(200)]  # no gradient is zero, so m is never zero later
    ours = path(simba.SimbaCeqM, grads)
    limit = path(simba.Lion, grads, betas=(1.0, 0.99))
    # at the first step m = 0, so eq. 1 is false (0 > 0) and Lion follows the gradient
    moved = limit[0] - ours[0]
    for a, b in zip(ours, limit, strict=True):
        torch.testing.assert_close(a + moved, b, rtol=0, atol=1e-6)


def test_lion_is_the_published_rule_without_ties():
    grads = gradients(300)
    p, m = start().detach(), torch.zeros(257)
    ours = path(simba.Lion, grads, weight_decay=0.5)
    for step, g in enumerate(grads):
        p.mul_(1 - 1e-4 * 0.5)
        p.add_((0.9 * m + (1 - 0.9) * g).sign(), alpha=-1e-4)
        m.mul_(0.99).add_(g, alpha=1 - 0.99)
        assert torch.equal(ours[step], p), f"step {step}"


def test_lion_follows_the_gradient_on_an_exact_tie():
    g, m = torch.tensor([1.0]), torch.tensor([-1.0])
    assert simba.directions.lion(g, m, 0.5, 0.5) == 1
    assert torch.sign(0.5 * m + 0.5 * g) == 0


@every_optimizer
@pytest.mark.parametrize("size", [1, 257, 2 * eager.CHUNK_ELEMENTS + 3])
def test_steps_in_chunks_in_lists_and_fused_have_the_bits_of_whole_tensors(
    cls, kwargs, size, monkeypatch
):
    torch.manual_seed(0)
    grads = [torch.randn(size) * (torch.rand(size) > 0.2) for _ in range(30)]
    ends = []
    for implementation, chunk in (
        ({}, 10**9),
        ({}, 2**15),
        ({"foreach": True}, 0),
        ({"fused": True}, 0),
    ):
        monkeypatch.setattr(eager, "CHUNK_ELEMENTS", chunk)
        p = torch.nn.Parameter(torch.linspace(-1, 1, size))
        optimizer = cls([p], lr=1e-2, weight_decay=0.1, **implementation, **kwargs)
        for g in grads:
            p.grad = g.clone()
            optimizer.step()
        ends.append([p.detach(), *optimizer.state[p].values()])
    for other in ends[1:]:
        assert all(torch.equal(a, b) for a, b in zip(ends[0], other, strict=True))


@pytest.mark.slow
@every_optimizer
def test_fused_steps_do_not_depend_on_the_default_device(cls, kwargs):
    ends = []
    for device in ("cpu", "meta"):
        p = torch.nn.Parameter(torch.linspace(-1, 1, 100))
        p.grad = torch.linspace(1, -1, 100)
        with torch.device(device):
            optimizer = cls([p], lr=1e-2, fused=True, **kwargs)
            optimizer.step()
            optimizer.step()
        ends.append(p.detach())
    assert torch.equal(*ends)


def test_fused_without_numba_says_what_to_install():
    code = "import sys; sys.modules['numba'] = None; import simba, torch; simba.Lion(%s)"
    args = "[torch.nn.Parameter(torch.zeros(1))]"
    run = [sys.executable, "-c"]
    subprocess.run([*run, code % args], check=True)
    done = subprocess.run([*run, code % f"{args}, fused=True"], capture_output=True, text=True)
    assert "fused=True needs numba: pip install" in done.stderr
    late = f"{args}).add_param_group(dict(params={args}, fused=True)"
    done = subprocess.run([*run, code % late], capture_output=True, text=True)
    assert "fused=True needs numba: pip install" in done.stderr


FUSED = """
import torch, simba
p = torch.nn.Parameter(torch.zeros(3))
optimizer = simba.Lion([p], lr=1.0, fused=True)
p.grad = torch.tensor([-1.0, 0.0, 2.0])
optimizer.step()
print(p.tolist())
"""


@pytest.mark.slow
def test_numbas_own_import_error_is_shown(tmp_path):
    (tmp_path / "numba.py").write_text("raise ImportError('Numba needs NumPy 2.2 or less')")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    command = [sys.executable, "-c", FUSED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stderr.endswith("ImportError: Numba needs NumPy 2.2 or less\n")
    assert "pip install numba" not in done.stderr


@pytest.mark.slow
def test_fused_steps_where_numba_may_not_compile():
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", FUSED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout == "[1.0, 0.0, -1.0]\n", done.stderr


@every_optimizer
def test_minimises_a_quadratic(cls, kwargs):
    if kwargs.get("window_size", 0) > 100:
        pytest.skip("this counter needs more steps than the test has to change its sign")
    p = start()
    optimizer = cls([p], lr=1e-2, **kwargs)
    first = p.square().sum().item()
    for _ in range(500):
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        optimizer.step()
    assert p.square().sum().item() < 0.05 * first


@every_optimizer
def test_maximize_mirrors_minimize(cls, kwargs):
    grads = gradients(50)
    assert_same(path(cls, grads, maximize=True, **kwargs), path(cls, [-g for g in grads], **kwargs))


@every_optimizer
def test_resumes_bit_for_bit_with_the_same_state(cls, kwargs, tmp_path):
    grads = gradients(100)
    whole = path(cls, grads, weight_decay=0.1, **kwargs)
    p = start()
    optimizer = cls([p], weight_decay=0.1, **kwargs)
    for g in grads[:60]:
        p.grad = g.clone()
        optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    q = torch.nn.Parameter(p.detach().clone())
    resumed = cls([q], lr=123.0)  # overwritten by the state
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for name, value in optimizer.state[p].items():
        assert resumed.state[q][name].dtype == value.dtype
        assert resumed.state[q][name].data_ptr() != value.data_ptr()
    for g in grads[60:]:
        q.grad = g.clone()
        resumed.step()
    assert torch.equal(q, whole[-1])


def test_counters_stay_integers_for_bfloat16_parameters():
    p = torch.nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))
    optimizer = simba.Simba([p])
    p.grad = torch.ones_like(p)
    optimizer.step()
    other = simba.Simba([p])
    other.load_state_dict(optimizer.state_dict())
    assert other.state[p]["sign_counts"].dtype == torch.int16


@every_optimizer
def test_parameter_groups_have_their_own_lr(cls, kwargs):
    a, b = start(), start()
    optimizer = cls([{"params": [a], "lr": 1e-1}, {"params": [b]}], lr=1e-3, **kwargs)
    for _ in range(2):  # Simba + (c = m) does not move in its first step
        a.grad, b.grad = torch.ones(257), torch.ones(257)
        optimizer.step()
    torch.testing.assert_close((start() - a) / 100, start() - b, rtol=1e-3, atol=1e-6)


@every_optimizer
def test_skips_parameters_without_gradient(cls, kwargs):
    p = start()
    optimizer = cls([p], weight_decay=0.5, **kwargs)
    optimizer.step()
    assert torch.equal(p, start())
    assert not optimizer.state[p]


@every_optimizer
def test_leaves_gradients_alone_and_returns_the_closures_loss(cls, kwargs):
    p = start()
    optimizer = cls([p], maximize=True, **kwargs)

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    assert loss.item() == pytest.approx(start().square().sum().item())
    assert torch.equal(p.grad, 2 * start())


@every_optimizer
def test_refuses_sparse_and_complex(cls, kwargs):
    table = torch.nn.Embedding(5, 3, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        cls(table.parameters(), **kwargs).step()
    p = torch.nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    p.grad = torch.ones_like(p)
    with pytest.raises(RuntimeError, match="complex"):
        cls([p], **kwargs).step()


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        (simba.SignSGD, "lr", -1.0),
        (simba.SignSGD, "lr", math.nan),
        (simba.SignSGD, "lr", "abc"),
        (simba.SignSGD, "weight_decay", -0.1),
        (simba.Lion, "betas", (0.9,)),
        (simba.Lion, "betas", (0.9, 1.1)),
        (simba.Simba, "window_size", 0),
        (simba.Simba, "window_size", 128.0),
        (simba.Simba, "window_size", 32768),
        (simba.Simba, "threshold", 1.5),
        (simba.SimbaM, "beta2", None),
        (simba.SimbaCeqM, "beta2", True),
    ],
)
def test_the_error_for_a_bad_hyperparameter_names_it(cls, name, value):
    with pytest.raises(ValueError, match=f"{cls.__name__}: {name} must be"):
        cls([start()], **{name: value})


@pytest.mark.parametrize(
    ("cls", "excluded"),
    [(simba.SignSGD, "betas"), (simba.Simba, "betas"), (simba.SimbaCeqM, "window_size")],
)
def test_an_optimizer_takes_only_its_own_hyperparameters(cls, excluded):
    with pytest.raises(TypeError):
        cls([start()], **{excluded: 1})


def test_a_nan_gradient_moves_nothing_by_itself():
    p = torch.nn.Parameter(torch.zeros(1))
    p.grad = torch.full_like(p, math.nan)
    optimizer = simba.Simba([p])
    optimizer.step()
    assert p.item() == 0
    assert optimizer.state[p]["sign_counts"].item() == 0


VARIANT = """
from helper import {formula} as part
from simba.base import SignOptimizer
def towards(g, m):
    return part(m, g)
def latest(g):
    return g
class Variant(SignOptimizer):
    direction = staticmethod(towards)
    remember = {{"m": latest}}
    def __init__(self, params, lr=1.0, beta2=0.5, weight_decay=0.0, **options):
        defaults = dict(lr=lr, beta2=beta2, weight_decay=weight_decay)
        super().__init__(params, defaults, **options)
"""
USE = """
import sys, time, torch, variant
p = torch.nn.Parameter(torch.zeros(3))
optimizer = variant.Variant([p], fused=True)
p.grad = torch.tensor([-1.0, 0.0, 2.0])
optimizer.step()
assert "torch._dynamo" not in sys.modules  # its import takes over a second
print(p.tolist())
"""


HELPER = """
import torch
import yaml
from constant import FACTOR
def sign(x):
    return torch.sign(x)
def towards(m, g):
    return torch.where(m != 0, m, FACTOR * {sign}sign(g))
def unknown(m, g):
    return torch.tanh(g)
"""


@pytest.fixture
def new_variant(tmp_path):
    """A function that writes a new variant and takes a fused step with it in a new process."""

    def steps(formula="towards", sign="", factor=1, **more) -> subprocess.CompletedProcess[str]:
        (tmp_path / "constant.py").write_text(f"FACTOR = {factor}")
        (tmp_path / "variant.py").write_text(VARIANT.format(formula=formula))
        (tmp_path / "helper.py").write_text(HELPER.format(sign=sign))
        environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}"} | more
        command = [sys.executable, "-c", USE]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return steps


@pytest.mark.slow
def test_a_new_variant_can_be_fused_and_is_recompiled_if_its_functions_change(new_variant):
    assert new_variant().stdout == new_variant().stdout == "[1.0, 0.0, -1.0]\n"
    assert new_variant(sign="-").stdout == "[-1.0, 0.0, 1.0]\n"
    assert new_variant(sign="-", factor=-2).stdout == "[2.0, 0.0, -2.0]\n"


@pytest.mark.slow
def test_the_error_for_a_function_that_cannot_be_fused(new_variant):
    done = new_variant(formula="unknown")
    assert "TypeError: fused=True cannot compile one of towards" in done.stderr


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_compiled_code_is_found_again_on_disk(dtype):
    """numba hashes a loop's closure for its cache key; an intrinsic has another hash each time."""
    names = ("b1", "b2", "one_minus_b1", "one_minus_b2")
    loop = numba_cpu._loop(simba.Lion.variant, names, (dtype, dtype), False)
    closure = [cell.cell_contents for cell in loop.py_func.__closure__]
    assert len(closure) > 5
    assert not [held for held in closure if isinstance(held, _Intrinsic)]


@pytest.mark.skipif(not get_host_cpu_features().get("avx512f"), reason="needs AVX-512")
def test_compiled_code_has_vectors_of_512_bits_and_asks_for_memory_ahead():
    names = ("b1", "b2", "one_minus_b1", "one_minus_b2")
    make_loop = numba_cpu._loop.__wrapped__  # without the cache in memory
    loop = make_loop(simba.Lion.variant, names, (torch.float32, torch.float32), False)
    loop._cache = NullCache()  # code that is loaded from disk cannot be inspected
    loop.compile((*[int64] * 6, float64, UniTuple(float64, len(names)), float64, float64))
    code = "".join(loop.inspect_asm().values())
    assert "zmm" in code
    assert "prefetch" in code


@pytest.mark.slow
def test_fused_without_a_cache_folder(new_variant, tmp_path):
    (tmp_path / "file").touch()
    only = {"NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    done = new_variant(NUMBA_CACHE_DIR=str(tmp_path / "file"), **only)
    assert done.stdout == "[1.0, 0.0, -1.0]\n", done.stderr


@every_implementation
def test_a_window_may_be_raised_and_lowered(implementation):
    p = torch.nn.Parameter(torch.zeros(1))
    optimizer = simba.Simba([p], lr=1.0, window_size=127, threshold=0.5, **implementation)
    group = optimizer.param_groups[0]

    def step(g: float) -> float:
        before = p.item()
        p.grad = torch.tensor([g])
        optimizer.step()
        return p.item() - before

    for _ in range(70):
        step(1.0)
    assert step(-1.0) == -1.0  # by its memory, because 70 > 63; s is 69 after this step
    group["window_size"] = 1000
    assert step(-1.0) == 1.0  # 69 < 500
    for _ in range(600):
        step(1.0)
    assert optimizer.state[p]["sign_counts"].item() == 68 + 600
    group["window_size"] = 100
    step(-1.0)
    assert optimizer.state[p]["sign_counts"].item() == 99
    assert optimizer.state[p]["sign_counts"].dtype == torch.int8


def test_a_refused_group_or_gradient_changes_nothing():
    p, q = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = simba.Lion([p])
    with pytest.raises(ValueError, match="lr must be"):
        optimizer.add_param_group({"params": [q], "lr": -1.0})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": [q]})
    p.grad, q.grad = torch.ones(2), torch.ones(2).to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()
    assert p.tolist() == [1, 1]


def test_the_state_of_another_optimizer_is_refused():
    p = torch.nn.Parameter(torch.ones(2))
    lion, simba_ = simba.Lion([p]), simba.Simba([p])
    with pytest.raises(ValueError, match=r"Simba: cannot load .*: it has no thresh"):
        simba_.load_state_dict(lion.state_dict())
    with pytest.raises(ValueError, match=r"Lion: cannot load .*: it has window_size"):
        lion.load_state_dict(simba.SimbaEq1([p]).state_dict())
    p.grad = torch.ones(2)
    adam = torch.optim.AdamW([p])
    adam.step()
    with pytest.raises(ValueError, match="it has exp_avg_sq"):
        lion.load_state_dict(adam.state_dict())


@every_implementation
def test_many_tensors_lazily_negated_gradients_and_infinity(implementation, monkeypatch):
    monkeypatch.setattr(eager, "_max_chunk_elements", lambda: 5)
    params = [torch.nn.Parameter(torch.zeros(n)) for n in (3, 4, 7, 1, 0, 2)]
    optimizer = simba.Lion(params, lr=1.0, **implementation)
    for p in params:
        p.grad = torch._neg_view(torch.ones_like(p))
    optimizer.step()
    assert all((p == 1).all() for p in params)
    params[0].grad = torch.full((3,), math.inf)
    for _ in range(3):
        optimizer.step()
        params[0].grad = -torch.ones(3)
    assert params[0].tolist() == [-2.0] * 3  # m stays infinite


def test_numbers_may_be_numpys_and_tensor_rates_are_checked():
    p = torch.nn.Parameter(torch.ones(()))
    simba.Simba([p], lr=np.float32(0.1), window_size=np.int64(100))
    with pytest.raises(ValueError, match="lr must be"):
        simba.Lion([p], lr=torch.tensor(-1.0), capturable=True)
    optimizer = simba.Lion([p], lr=torch.tensor([0.5]), capturable=True)
    p.grad = torch.ones(())
    optimizer.step()
    assert p.item() == 0.5


def test_hooks_may_change_the_loaded_state_and_get_integers():
    def optimizer():
        torch.manual_seed(0)
        new = simba.Simba([torch.nn.Parameter(torch.randn(n)) for n in (3, 5)], window_size=100)
        for p in new.param_groups[0]["params"]:
            p.grad = torch.randn_like(p)
        new.step()
        return new

    def renumber(_, state_dict):
        ids = {0: "first", 1: "second"}
        groups = [g | {"params": [ids[i] for i in g["params"]]} for g in state_dict["param_groups"]]
        return {
            "state": {ids[i]: v for i, v in state_dict["state"].items()},
            "param_groups": groups,
        }

    source, target = optimizer(), optimizer()
    seen = []
    target.register_load_state_dict_pre_hook(renumber)
    target.register_load_state_dict_post_hook(
        lambda o: seen.extend(state["sign_counts"].dtype for state in o.state.values())
    )
    target.load_state_dict(source.state_dict())
    assert seen == [torch.int8, torch.int8]
    for a, b in zip(source.state.values(), target.state.values(), strict=True):
        assert torch.equal(a["sign_counts"], b["sign_counts"])
    target.load_state_dict(source.state_dict())  # our own hooks have been removed
    assert len(target._optimizer_load_state_dict_pre_hooks) == 1


@every_implementation
@every_optimizer
def test_a_memory_of_another_size_is_an_error_and_does_not_crash(cls, kwargs, implementation):
    p = torch.nn.Parameter(torch.zeros(10, 8))
    optimizer = cls([p], **kwargs, **implementation)
    p.grad = torch.ones_like(p)
    optimizer.step()
    p.data = torch.zeros(5000, 8)
    p.grad = torch.ones_like(p)
    if cls is simba.SignSGD:
        return optimizer.step()
    with pytest.raises(RuntimeError, match="size"):
        optimizer.step()


@every_optimizer
def test_all_of_torchs_threads_take_the_same_step(cls, kwargs, monkeypatch):
    from simba.backends import numba_cpu

    monkeypatch.setattr(numba_cpu, "MIN_ELEMENTS_PER_THREAD", 50)
    before = torch.get_num_threads()
    ends = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            params = [torch.nn.Parameter(torch.randn(n)) for n in (100, 1, 0, 257, 64)]
            optimizer = cls(params, **kwargs, fused=True)
            for _ in range(5):
                for p in params:
                    p.grad = torch.randn_like(p)
                optimizer.step()
            ends.append([p.detach() for p in params])
    finally:
        torch.set_num_threads(before)
    assert_same(*ends)


@pytest.mark.skipif(torch.__version__.startswith("2.5."), reason="torch 2.5 cannot trace the step")
@pytest.mark.parametrize("implementation", [{}, {"fused": True}], ids=["eager", "fused"])
@every_optimizer
def test_a_step_traces_into_one_graph_and_warns_of_nothing(
    cls, kwargs, implementation, monkeypatch
):
    if cls.variant.windowed:
        return  # the index of the current plane of signs is a Python number: it cannot be traced
    for most in ("CHUNK_ELEMENTS", "GRAIN_SIZE"):
        monkeypatch.setattr(eager, most, 16)
    graphs, grads = [], gradients(2)

    def backend(graph, _):
        graphs.append(graph)
        return graph

    torch._dynamo.reset()  # torch compiles one code object at most eight times
    ends = []
    for compiled in (False, True):
        p = start()
        optimizer = cls([p], **kwargs, **implementation)
        p.grad = grads[0].clone()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            optimizer.step()
        p.grad = grads[1].clone()
        step = optimizer.step
        (torch.compile(step, backend=backend, fullgraph=True) if compiled else step)()
        ends.append([p.detach(), *optimizer.state.get(p, {}).values()])
    assert_same(*ends)
    assert len(graphs) == 1
    assert len(graphs[0].graph.nodes) < 200  # the step is not traced once per chunk


def carried(s, e, x, noise, least=1, bound=7, error_bound=8, per_vote=16):
    """The new counter and error of TernaryLionCarry for a gradient x, with b2 = 0.99."""
    values = {"x": torch.as_tensor(x), "s": torch.as_tensor(s), "e": torch.as_tensor(e)}
    values |= {"b2": 0.99, "unit": 1 / per_vote, "largest": 1.0, "bound": bound}
    count = directions.carrying_count(**values)
    values |= {"per_vote": per_vote, "error_bound": error_bound, "least": least}
    return count, directions.carried_error(**values, noise_e=torch.as_tensor(noise))


def every_memory():
    s, e = torch.meshgrid(torch.arange(-7.0, 8), torch.arange(-8.0, 9), indexing="ij")
    return s.flatten(), e.flatten()


def test_with_carry_counter_and_error_decay_as_one_number():
    s, e = every_memory()
    noises = (torch.arange(1000) + 0.5) / 1000
    new = [torch.add(*carried(s, e, 0.0, noise, least=0), alpha=1 / 16) for noise in noises]
    torch.testing.assert_close(torch.stack(new).mean(0), 0.99 * (s + e / 16), rtol=0, atol=1e-3)


@pytest.mark.parametrize("x", [0.0, 0.001, -0.03])
@pytest.mark.parametrize("noise", [0.0, 0.5, 0.9999])
def test_with_carry_a_sum_is_never_rounded_to_zero(noise, x):
    s, e = every_memory()
    count, error = carried(s, e, x, noise)
    exact = 0.99 * (s + e / 16) + x
    near = exact.abs() < 1 / 16
    assert near.any()
    assert torch.equal(torch.sign(count + error / 16)[near], torch.sign(exact)[near])


def test_the_error_carries_into_the_counter_at_half_a_vote():
    assert carried(0.0, 7.0, 0.05, 0.5) == (0.0, 8.0)  # 0.48 votes; 7.73 units
    assert carried(0.0, 7.0, 0.10, 0.5) == (1.0, -7.0)  # 0.53 votes; 8.53 - 16 units
    assert carried(3.0, -8.0, 0.0, 0.5) == (2.0, 8.0)  # 2.475 votes: the decay carries


@pytest.mark.parametrize("least", [1, 15])
@pytest.mark.parametrize("x", [0.0, 1.0, -30.0, float("inf")])
def test_with_carry_counter_and_error_stay_in_their_ranges(x, least):
    s, e = every_memory()
    count, error = carried(s, e.clamp(-3, 3), x, 0.9, least, error_bound=3, per_vote=4)
    assert (count.abs() <= 7).all()
    assert (error.abs() <= 3).all()


@pytest.mark.parametrize(
    ("name", "preset"), [("byte_fine", presets.ONE_BYTE), ("ef_lasting", presets.TWO_BYTES)]
)
def test_a_preset_has_the_settings_that_the_study_trained(name, preset):
    path = REPOSITORY / "configs" / "optimizer" / f"ternary_lion_{name}.yaml"
    trained = yaml.safe_load(path.read_text())
    defaults = simba.TernaryLionEF([start()], **preset).defaults
    shared = trained.keys() & defaults.keys() - {"lr", "weight_decay", "fused"}
    assert {"gain", "bound", "least", "error_bound", "per_vote", "leaky_error"} <= shared
    assert {k: trained[k] for k in shared} == {k: _plain(defaults[k]) for k in shared}


def _plain(value):
    return list(value) if isinstance(value, tuple) else value
