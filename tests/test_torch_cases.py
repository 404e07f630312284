"""The cases of torch's test_optim.py for all optimizers, and state dicts from other sources."""

import copy
import io
import pickle
import subprocess
import sys
from collections import UserList

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import simba
from simba.backends import eager
from simba.base import IMPLEMENTATION_OPTIONS
from tests.conftest import REPOSITORY
from tests.optimizers import IMPLEMENTATIONS, every_implementation, every_optimizer, takes_names


def linear(dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(5, 4, dtype=dtype)


def step(optimizer: simba.SignOptimizer, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
    optimizer.step()


def tensors(optimizer: simba.SignOptimizer) -> list[Tensor]:
    params = [p for group in optimizer.param_groups for p in group["params"]]
    states = [optimizer.state.get(p, {}) for p in params]
    return [p.detach() for p in params] + [t for state in states for t in state.values()]


def assert_same(a: list[Tensor], b: list[Tensor]) -> None:
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype
        assert torch.equal(x, y)


def saved_and_loaded(state: dict) -> dict:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@every_optimizer
def test_state_exists_only_if_the_optimizer_needs_it(cls, kwargs):
    optimizer = cls(linear().parameters(), **kwargs)
    assert not optimizer.state
    step(optimizer)
    keeps = bool(cls.variant.names) or cls.variant.has_per_tensor_state
    assert len(optimizer.state) == (2 if keeps else 0)
    assert all(optimizer.state.values())


@every_optimizer
def test_state_dict_pre_hook_may_add_an_entry(cls, kwargs):
    optimizer = cls(linear().parameters(), **kwargs)
    step(optimizer)

    def hook(optimizer):
        optimizer.state["test"] = 1

    optimizer.register_state_dict_pre_hook(hook)
    assert optimizer.state_dict()["state"]["test"] == 1
    other = cls(linear().parameters(), **kwargs)
    other.load_state_dict(optimizer.state_dict())
    assert other.state["test"] == 1


@every_optimizer
def test_state_dict_post_hook_may_wrap(cls, kwargs):
    optimizer = cls(linear().parameters(), **kwargs)
    step(optimizer)
    order = []
    optimizer.register_state_dict_post_hook(lambda _, found: order.append("late") or {"own": found})
    optimizer.register_state_dict_post_hook(lambda *_: order.append("early"), prepend=True)
    found = optimizer.state_dict()
    assert order == ["early", "late"]
    assert all(t.dtype != torch.int16 for s in found["own"]["state"].values() for t in s.values())
    other = cls(linear().parameters(), **kwargs)
    other.register_load_state_dict_pre_hook(lambda _, found: found["own"])
    other.load_state_dict(saved_and_loaded(found))
    assert_same(tensors(optimizer)[2:], tensors(other)[2:])


@every_optimizer
def test_load_state_dict_hooks_run_in_their_order(cls, kwargs):
    optimizer = cls(linear().parameters(), **kwargs)
    order = []

    def hook(name):
        return lambda *_: order.append(name)

    for when in ("pre", "post"):
        register = getattr(optimizer, f"register_load_state_dict_{when}_hook")
        register(hook(f"{when} 2"))
        register(hook(f"{when} 1"), prepend=True)
    optimizer.load_state_dict(optimizer.state_dict())
    assert order == ["pre 1", "pre 2", "post 1", "post 2"]


@every_optimizer
def test_step_hooks(cls, kwargs):
    optimizer = cls(linear().parameters(), **kwargs)
    order = []
    handles = [
        optimizer.register_step_pre_hook(lambda *_: order.append("pre")),
        optimizer.register_step_post_hook(lambda *_: order.append("post")),
        register_optimizer_step_pre_hook(lambda *_: order.append("pre of all")),
        register_optimizer_step_post_hook(lambda *_: order.append("post of all")),
    ]
    try:
        step(optimizer)
        assert order == ["pre of all", "pre", "post", "post of all"]
    finally:
        for handle in handles:
            handle.remove()
    step(optimizer)
    assert len(order) == 4


@every_optimizer
def test_foreign_entries_survive_the_round_trip(cls, kwargs):
    """For example, TRAC of pytorch_optimizer stores parameters, and wrappers store averages."""
    model = linear()
    optimizer = cls(model.parameters(), **kwargs)
    step(optimizer)
    optimizer.state["trac"] = {p: p.detach().clone() for p in model.parameters()}
    optimizer.state[model.weight]["ema"] = torch.ones(4, 5)
    optimizer.state[model.weight]["seen"] = 7
    other = cls(model.parameters(), **kwargs)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert len(other.state["trac"]) == 2
    assert torch.equal(other.state[model.weight]["ema"], torch.ones(4, 5))
    assert other.state[model.weight]["seen"] == 7
    step(other, 1)


@every_optimizer
@pytest.mark.parametrize("key", ["step", "momentum_buffer"])
def test_what_a_wrapper_adds_may_have_the_name_of_anothers_memory(cls, kwargs, key):
    optimizer = cls([nn.Parameter(torch.ones(3))], **kwargs)
    step(optimizer)
    (state,) = optimizer.state.values() or [{}]
    if not state or key in state:  # a state of wrappers alone looks like another optimizer's
        return
    state[key] = torch.tensor(3.0)
    p = nn.Parameter(torch.ones(3))
    other = cls([p], **kwargs)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert other.state[p][key] == 3
    step(other, 1)


@every_optimizer
def test_a_state_of_another_shape_is_refused(cls, kwargs):
    optimizer = cls([nn.Parameter(torch.ones(3))], **kwargs)
    step(optimizer)
    p = nn.Parameter(torch.ones(2))
    other = cls([p], **kwargs)
    if not cls.variant.names:
        return other.load_state_dict(optimizer.state_dict())
    with pytest.raises(ValueError, match=rf"^{cls.__name__}: \w+ of parameter 0 has the shape .*$"):
        other.load_state_dict(optimizer.state_dict())
    assert not other.state


@every_optimizer
@pytest.mark.parametrize(
    "theirs",
    [torch.optim.AdamW, torch.optim.Adamax, torch.optim.SGD, torch.optim.Adagrad, torch.optim.ASGD],
)
def test_the_state_of_torchs_optimizers_is_refused(cls, kwargs, theirs):
    model = linear()
    foreign = theirs(model.parameters(), **({"momentum": 0.9} if theirs is torch.optim.SGD else {}))
    step(foreign)
    with pytest.raises(ValueError, match=f"{cls.__name__}: cannot load .*: it has "):
        cls(model.parameters(), **kwargs).load_state_dict(foreign.state_dict())


def test_a_state_that_lacks_a_memory_is_refused():
    """SimbaWindow has the hyperparameters of Simba, and a memory more."""
    counting = simba.Simba([nn.Parameter(torch.ones(3))], window_size=4)
    step(counting)
    window = simba.SimbaWindow([nn.Parameter(torch.ones(3))], window_size=4)
    with pytest.raises(ValueError, match=r"SimbaWindow: cannot load .*: it has no signs$"):
        window.load_state_dict(counting.state_dict())


@every_optimizer
def test_groups_of_another_optimizer_are_refused_or_their_other_keys_ignored(cls, kwargs):
    groups = torch.optim.AdamW(linear().parameters()).param_groups
    if "betas" not in cls([nn.Parameter(torch.ones(1))], **kwargs).defaults:
        match = f"{cls.__name__} does not take betas: remove this from the group"
        with pytest.raises(ValueError, match=match):
            cls(groups, **kwargs)
        optimizer = cls(linear().parameters(), **kwargs)
        with pytest.raises(ValueError, match=match):
            optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "betas": (0, 0)})
        assert len(optimizer.param_groups) == 1
        return
    optimizer = cls(groups, **kwargs)
    step(optimizer)
    optimizer.load_state_dict(saved_and_loaded(optimizer.state_dict()))
    assert optimizer.param_groups[0]["eps"] == 1e-8


@pytest.mark.parametrize(
    "betas", [np.float64(0.9), torch.tensor(0.9), {0: 0.9, 1: 0.99}, "ab", 0.9]
)
def test_betas_that_are_no_sequence_are_refused_by_name(betas):
    with pytest.raises(ValueError, match=r"^Lion: betas must be two numbers in \[0, 1\], got"):
        simba.Lion([nn.Parameter(torch.ones(2))], betas=betas)


@pytest.mark.parametrize("make", [list, np.array, OmegaConf.create, UserList, torch.tensor])
def test_betas_are_any_sequence_and_stored_as_a_tuple(make):
    p = nn.Parameter(torch.ones(2))
    optimizer = simba.Lion([{"params": [p], "betas": make([0.5, 0.25])}], betas=make([0.5, 0.75]))
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    assert optimizer.defaults["betas"] == (0.5, 0.75)
    groups = saved_and_loaded(optimizer.state_dict())["param_groups"]
    assert [group["betas"] for group in groups] == [(0.5, 0.25), (0.5, 0.75)]
    assert all(type(beta) is float for group in groups for beta in group["betas"])
    groups[0]["betas"] = [0.5, 0.125]  # like a state dict that was saved with a list
    optimizer.load_state_dict({"state": {}, "param_groups": groups})
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.125)


def test_numpys_numbers_become_pythons_and_the_state_loads_with_weights_only():
    p = nn.Parameter(torch.ones(2))
    numbers = {"lr": np.float32(0.5), "window_size": np.int64(9), "threshold": np.array(0.25)}
    optimizer = simba.Simba([p], **numbers, maximize=np.bool_(True))
    group = optimizer.param_groups[0]
    values = [group[key] for key in ("lr", "window_size", "threshold", "maximize")]
    assert [(type(value), value) for value in values] == [
        (float, 0.5),
        (int, 9),
        (float, 0.25),
        (bool, True),
    ]
    group["lr"] = np.float64(0.125)  # as a scheduler may set it
    assert saved_and_loaded(optimizer.state_dict())["param_groups"][0]["lr"] == 0.125


@every_implementation
@every_optimizer
def test_param_groups_have_their_own_weight_decay(cls, kwargs, implementation):
    model = linear()
    groups = [{"params": [model.weight], "weight_decay": 0.5}, {"params": [model.bias]}]
    optimizer = cls(groups, lr=0.1, weight_decay=0.0, **kwargs, **implementation)
    before = [p.detach().clone() for p in (model.weight, model.bias)]
    model.weight.grad, model.bias.grad = torch.zeros(4, 5), torch.zeros(4)
    optimizer.step()
    assert torch.equal(model.weight, before[0] * (1 - 0.1 * 0.5))
    assert torch.equal(model.bias, before[1])  # without decay, zero gradients move nothing


@every_implementation
@every_optimizer
def test_a_step_is_a_noop_for_empty_gradients(cls, kwargs, implementation):
    p = nn.Parameter(torch.empty(0, 3))
    p.grad = torch.empty(0, 3)
    optimizer = cls([p], **kwargs, **implementation)
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()
    assert p.shape == (0, 3)


@every_optimizer
def test_an_optimizer_can_be_printed(cls, kwargs):
    optimizer = cls(linear().parameters(), lr=0.5, **kwargs)
    text = repr(optimizer)
    assert text.startswith(f"{cls.__name__} (\nParameter Group 0\n")
    assert "    lr: 0.5\n" in text


@every_optimizer
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("named_too", [False, True])
def test_state_dict_is_deterministic_and_goes_between_named_and_unnamed(
    cls, kwargs, named, named_too
):
    def made(named):
        model = linear()
        return cls(model.named_parameters() if named else model.parameters(), **kwargs)

    if (named or named_too) and not takes_names():
        pytest.skip("torch has named parameters since 2.6")
    optimizer, other = made(named), made(named_too)
    for seed in range(3):
        step(optimizer, seed)
        step(other, seed)
    before = saved_and_loaded(optimizer.state_dict())
    other.load_state_dict(copy.deepcopy(before))
    assert ("param_names" in other.param_groups[0]) == (named or named_too)
    for seed in range(3, 6):
        step(optimizer, seed)
        step(other, seed)
    assert_same(tensors(optimizer), tensors(other))


@every_optimizer
def test_an_older_state_loads(cls, kwargs):
    """A state dict without options, whose per-tensor state holds Python numbers."""
    optimizer = cls(linear().parameters(), **kwargs)
    step(optimizer)
    older = copy.deepcopy(optimizer.state_dict())
    for group in older["param_groups"]:
        for name in (*IMPLEMENTATION_OPTIONS, "maximize", "differentiable", "stochastic_rounding"):
            del group[name]
    for state in older["state"].values():
        for name in {"step", "scale"} & state.keys():
            state[name] = state[name].item()
    other = cls(linear().parameters(), **kwargs)
    step(other)
    other.load_state_dict(older)
    step(optimizer, 1)
    step(other, 1)
    assert_same(tensors(optimizer), tensors(other))


@every_optimizer
@pytest.mark.parametrize("before", IMPLEMENTATIONS)
@pytest.mark.parametrize("after", IMPLEMENTATIONS)
def test_a_state_goes_from_each_implementation_to_each(cls, kwargs, before, after):
    source = cls(linear().parameters(), **kwargs, **IMPLEMENTATIONS[before])
    target = cls(linear().parameters(), **kwargs, **IMPLEMENTATIONS[after])
    for seed in range(3):
        step(source, seed)
    for p, q in zip(*(o.param_groups[0]["params"] for o in (source, target)), strict=True):
        q.data.copy_(p.data)
    target.load_state_dict(copy.deepcopy(source.state_dict()))
    assert target.param_groups[0]["fused"] == IMPLEMENTATIONS[after].get("fused")
    step(source, 3)
    step(target, 3)
    assert_same(tensors(source), tensors(target))


@every_optimizer
def test_groups_changed_to_another_implementation(cls, kwargs):
    optimizer, other = (cls(linear().parameters(), **kwargs) for _ in range(2))
    for seed, implementation in enumerate([*IMPLEMENTATIONS.values(), *IMPLEMENTATIONS.values()]):
        optimizer.param_groups[0].update({"foreach": None, "fused": None} | implementation)
        step(optimizer, seed)
        step(other, seed)
    assert_same(tensors(optimizer), tensors(other))


@every_optimizer
def test_a_deepcopy_has_all_public_attributes(cls, kwargs):
    optimizer = cls(linear().parameters(), **kwargs)
    step(optimizer)

    def public(optimizer):
        return {name for name in vars(optimizer) if not name.startswith("_")}

    assert public(copy.deepcopy(optimizer)) == public(optimizer)
    assert public(pickle.loads(pickle.dumps(optimizer))) == public(optimizer)


@every_implementation
@every_optimizer
def test_one_group_of_several_dtypes(cls, kwargs, implementation):
    dtypes = (torch.float32, torch.bfloat16, torch.float64, torch.float16)
    ends = []
    for alone in (False, True):
        torch.manual_seed(0)
        params = [nn.Parameter(torch.randn(9).to(dtype)) for dtype in dtypes]
        optimizer = cls(
            params, lr=0.1, **kwargs, **({"foreach": False} if alone else implementation)
        )
        for seed in range(3):
            step(optimizer, seed)
        ends.append(tensors(optimizer))
    assert_same(*ends)


@every_implementation
@every_optimizer
def test_the_default_dtype_does_not_matter(cls, kwargs, implementation):
    ends = []
    for default in (torch.float32, torch.float64):
        torch.set_default_dtype(default)
        try:
            optimizer = cls(linear(torch.float32).parameters(), lr=0.1, **kwargs, **implementation)
            generator = torch.Generator().manual_seed(0)
            for p in optimizer.param_groups[0]["params"]:
                p.data.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float32))
                p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float32)
            optimizer.step()
            optimizer.step()
        finally:
            torch.set_default_dtype(torch.float32)
        ends.append(tensors(optimizer))
    assert_same(*ends)


@every_optimizer
def test_a_parameter_given_twice(cls, kwargs):
    p = nn.Parameter(torch.ones(2))
    with pytest.warns(UserWarning, match="duplicate parameters"):
        cls([p, p], **kwargs)
    with pytest.raises(ValueError, match="more than one parameter group"):
        cls([{"params": [p]}, {"params": [p]}], **kwargs)


class Largest(TorchDispatchMode):
    """Records the most bytes that one operation returned in newly allocated memory."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in tree_leaves(args) if torch.is_tensor(t)}
        for t in tree_leaves(result):
            if torch.is_tensor(t) and t.untyped_storage().data_ptr() not in given:
                self.bytes = max(self.bytes, t.nbytes)
        return result


GROWTH = """
import resource
import torch
import torch.distributed as dist
import simba
from simba.distributed import VoteState

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

torch.set_num_threads(1)
small, large = (torch.nn.Parameter(torch.ones(size)) for size in (100_000, 30_000_000))
small.grad, large.grad = torch.ones_like(small), torch.randn_like(large)
options = simba.presets.TWO_BYTES | {"fused": True}
optimizers = [simba.TernaryLionEF([p], **options) for p in (small, large)]
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
votes = VoteState([small, large])
optimizers[0].step()
votes.vote(small, small.grad)
before = peak()
optimizers[1].step()
middle = peak()
votes.vote(large, large.grad)
print((middle - before) / large.numel(), (peak() - middle) / large.numel())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
def test_a_first_step_and_a_vote_grow_the_process_by_little_more_than_their_state():
    """Small tensors that are kept between large temporaries would fragment the heap."""
    command = {"cwd": REPOSITORY, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", GROWTH], **command)
    assert done.returncode == 0, done.stderr
    step, vote = map(float, done.stdout.split())
    assert step < 2 + 0.5  # two bytes of state
    assert vote < 4 + 1 + 0.5  # the error in float32, and the vote


@every_implementation
@every_optimizer
def test_no_temporary_is_longer_than_a_chunk(cls, kwargs, implementation):
    sizes = [eager.CHUNK_ELEMENTS // 2 + 1] * 6 + [8 * eager.CHUNK_ELEMENTS]
    params = [nn.Parameter(torch.ones(size, dtype=torch.bfloat16)) for size in sizes]
    optimizer = cls(params, **kwargs, **implementation)
    for p in params:
        p.grad = torch.ones_like(p)
    with Largest() as first:
        optimizer.step()
    with Largest() as largest:
        optimizer.step()
    chunk = 8 * eager._max_chunk_elements()  # random numbers and sums are int64
    state = [v.nbytes for own in optimizer.state.values() for v in own.values()]
    assert first.bytes <= max([chunk, *state])
    assert largest.bytes <= chunk
