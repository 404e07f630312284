"""Tests of models: packed models are compared with a forward pass user by user, the compiled
operations with the reference, and ranks with a brute-force ranking."""

import math
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from data.batches import ranking_batches, training_batches
from data.sequences import Sequences
from models import ranking
from models.fism import FISM
from models.ops import CPU, REFERENCE, Backend, backend_for, cpu, reference
from models.packing import Packing, model_inputs
from models.ranking import metrics, rank_targets
from models.sasrec import SASRec, SASRecPreNorm
from tests.conftest import REPOSITORY

MAXLEN, ITEMS, HIDDEN = 12, 50, 8


def attention(q, k, v, first, heads):
    """Attention in loops over heads and rows: row t attends to rows first..t."""
    out = torch.zeros_like(q)
    width = q.shape[1] // heads
    for h in range(heads):
        cut = slice(h * width, (h + 1) * width)
        for t in range(len(q)):
            scores = torch.stack(
                [q[t, cut] @ k[j, cut] / math.sqrt(width) for j in range(first, t + 1)]
            )
            weights = torch.softmax(scores, 0)
            out[t, cut] = sum(
                w * v[j, cut] for w, j in zip(weights, range(first, t + 1), strict=True)
            )
    return out


def by_hand_postnorm(model, items):
    pads = MAXLEN - len(items)
    x = model.item.weight[items] + model.position.weight[pads:]
    x = model.norm(x)
    for block in model.blocks:
        a = attention(*block.qkv(x).chunk(3, dim=1), 0, block.heads)
        x = block.attention_norm(x + block.out(a))
        x = block.ffn_norm(x + block.narrow(F.gelu(block.widen(x))))
    return x


def by_hand_prenorm(model, items):
    """A forward pass over a left-padded sequence: pads are zero rows that all rows attend to."""
    pads = MAXLEN - len(items)
    real = torch.arange(MAXLEN).unsqueeze(1) >= pads
    x = math.sqrt(HIDDEN) * model.item.weight[[0] * pads + items] + model.position.weight
    x = x * real
    for block in model.blocks:
        q_w, k_w, v_w = block.qkv_weight.chunk(3)
        q_b, k_b, v_b = block.qkv_bias.chunk(3)
        q = F.linear(block.query_norm(x), q_w, q_b)
        a = attention(q, F.linear(x, k_w, k_b), F.linear(x, v_w, v_b), 0, block.heads)
        x = block.ffn_norm(block.out(a) + x)
        x = (x + block.second(F.relu(block.first(x)))) * real
    return model.norm(x)[pads:]


def by_hand_fism(model, items):
    x = model.history.weight[items]
    return torch.stack([x[: t + 1].mean(0) for t in range(len(items))])


FORMS = {
    "post": (lambda **kw: SASRec(ITEMS, hidden=HIDDEN, ffn=16, **kw), by_hand_postnorm),
    "pre": (lambda **kw: SASRecPreNorm(ITEMS, hidden=HIDDEN, **kw), by_hand_prenorm),
    "fism": (lambda heads=1, **kw: FISM(ITEMS, hidden=HIDDEN, dropout=0.2, **kw), by_hand_fism),
}


def build(form, maxlen=MAXLEN, heads=1):
    return FORMS[form][0](maxlen=maxlen, heads=heads)


def sequences(lengths, seed: int = 0) -> Sequences:
    rng = np.random.default_rng(seed)
    items = [rng.choice(np.arange(1, ITEMS + 1), n) for n in lengths]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Sequences(np.concatenate(items).astype(np.int32), offsets, ITEMS)


def some_sequences(seed: int) -> Sequences:
    """Sequences of 30 users; some have one item, some more than maxlen."""
    return sequences(np.random.default_rng(seed).integers(1, 20, size=30), seed)


FLAT_REFERENCE = Backend(reference, "flat")
BACKENDS = (REFERENCE, FLAT_REFERENCE, CPU)


def inputs(batch) -> dict:
    tensors = {name: torch.from_numpy(array) for name, array in batch.arrays().items()}
    return model_inputs(tensors, batch.layout)


def loss_inputs(data, layout, seed=0, maxlen=MAXLEN, negatives=2) -> dict:
    """The inputs of ``loss`` for all of the data in one batch."""
    rng = np.random.default_rng(seed)
    (batch,) = training_batches(data, rng, 10**6, maxlen, negatives, layout)
    return inputs(batch)


def disturbed(model):
    """Set random parameters, because biases of zero would hide mistakes."""
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }


def assert_same_gradients(ours, expected, **tolerance):
    for name, gradient in expected.items():
        torch.testing.assert_close(
            ours[name], gradient, msg=lambda m, n=name: f"{n}: {m}", **tolerance
        )


@pytest.mark.parametrize("backend", [REFERENCE, FLAT_REFERENCE], ids=["rows", "flat"])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(2))
def test_packed_loss_and_gradients_are_those_computed_user_by_user(form, heads, backend, seed):
    by_hand = FORMS[form][1]
    torch.manual_seed(seed)
    model = disturbed(build(form, heads=heads).double())
    data = some_sequences(seed)
    model.backend = backend
    batch = loss_inputs(data, backend.layout, seed)
    loss = model.loss(**batch)
    ours = gradients(model, loss)

    positive, negative = [], []
    items, packing, targets, negatives = (
        batch[name] for name in ("items", "packing", "targets", "negatives")
    )
    for row in range(len(items)):
        columns = [c for c in range(items.shape[1]) if items[row, c] > 0]
        for start in sorted({int(packing.starts[row, c]) for c in columns}):
            slots = [c for c in columns if packing.starts[row, c] == start]
            h = by_hand(model, items[row, slots].tolist())
            for state, slot in zip(h, slots, strict=True):
                positive.append(F.softplus(-state @ model.item.weight[targets[row, slot]]))
                for negative_item in negatives[row, slot]:
                    negative.append(F.softplus(state @ model.item.weight[negative_item]))
    expected = torch.stack(positive).mean() + torch.stack(negative).mean()
    assert len(positive) == data.num_targets(MAXLEN)
    torch.testing.assert_close(loss, expected)
    assert_same_gradients(ours, gradients(model, expected))


def keys_for(model, seed):
    return torch.from_numpy(
        np.random.default_rng(seed).integers(2**32, size=(model.num_dropout_keys, 2))
    )


LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=12).filter(lambda n: max(n) > 3)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=25, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 999), heads=st.sampled_from([1, 2]), drop=st.booleans())
def test_compiled_and_reference_operations_agree_in_both_layouts(form, lengths, seed, heads, drop):
    """With dropout, too: it depends on the token, not on its slot."""
    torch.manual_seed(seed)
    model = disturbed(build(form, maxlen=50, heads=heads))
    data = sequences(lengths, seed)
    keys = keys_for(model, seed) if drop else None
    losses, grads = [], []
    for backend in BACKENDS:
        model.backend = backend
        loss = model.loss(**loss_inputs(data, backend.layout, seed, maxlen=50), dropout_keys=keys)
        losses.append(loss.detach())
        grads.append(gradients(model, loss))
    for loss, grad in zip(losses[1:], grads[1:], strict=True):
        torch.testing.assert_close(loss, losses[0], rtol=1e-5, atol=1e-6)
        assert_same_gradients(grad, grads[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_hidden_states_are_those_of_a_full_forward_pass_with_every_backend(form):
    torch.manual_seed(0)
    model = disturbed(build(form))
    states = []
    for backend in BACKENDS:
        model.backend = backend
        (batch,) = ranking_batches(some_sequences(0), "test", 100, MAXLEN, backend.layout)
        states.append(model.hidden_states(**inputs(batch)))
    data = some_sequences(0)
    for user, state in zip(data.evaluated, states[0], strict=True):
        items = data.items[data.offsets[user] : data.offsets[user + 1] - 1][-MAXLEN:].tolist()
        torch.testing.assert_close(state, FORMS[form][1](model, items)[-1], rtol=1e-4, atol=1e-5)
    for other in states[1:]:
        torch.testing.assert_close(other, states[0], rtol=1e-4, atol=1e-5)


def test_a_device_gets_operations_and_layout_together():
    assert backend_for(torch.device("cpu")) == Backend(cpu, "flat")
    assert backend_for(torch.device("cuda")) == Backend(reference, "rows")
    with pytest.raises(ValueError, match="flat batches only, not 'rows'"):
        Backend(cpu, "rows")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("backend", "other"), [(CPU, "rows"), (REFERENCE, "flat")])
def test_a_batch_of_another_layout_is_refused(form, backend, other):
    model = build(form)
    model.backend = backend
    data = some_sequences(0)
    message = f"the batch's layout is '{other}', the model's backend takes '{backend.layout}'"
    with pytest.raises(ValueError, match=message):
        model.loss(**loss_inputs(data, other))
    (batch,) = ranking_batches(data, "test", 100, MAXLEN, other)
    with pytest.raises(ValueError, match=message):
        model.hidden_states(**inputs(batch))


def test_a_packing_that_contradicts_its_layout_is_refused():
    slots = torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="a flat batch has one row, this one has 2"):
        Packing(slots, slots, slots, "flat")
    with pytest.raises(ValueError, match="'rows' or 'flat', got 'row'"):
        Packing(slots, slots, slots, "row")


@pytest.mark.slow
def test_kernels_compile_if_no_cache_folder_can_be_written(tmp_path):
    """The paths of all cache folders are files, so not even root can write there."""
    copy = tmp_path / "models"
    shutil.copytree(
        REPOSITORY / "models", copy, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
    )
    (copy / "ops" / "__pycache__").touch()
    code = (
        "import numpy as np; from models.ops import kernels; y = np.ones((1, 2), np.float32); "
        "kernels.gelu(np.zeros_like(y), np.zeros(2, np.float32), y); print(kernels.__file__, y)"
    )
    nowhere = {
        "HOME": "/dev/null",
        "XDG_CACHE_HOME": "/dev/null/x",
        "NUMBA_CACHE_DIR": "/dev/null/x",
    }
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=inherited | nowhere,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{copy / 'ops' / 'kernels.py'} [[0. 0.]]\n"


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5])
def test_dropout_keeps_the_right_share_and_differs_between_keys(rate):
    x, tokens = torch.ones(1, 4000, 64), torch.arange(4000).unsqueeze(0)
    keys = torch.from_numpy(np.random.default_rng(0).integers(2**32, size=(8, 2)))
    kept = torch.stack([cpu.dropout(x, rate, key, tokens) > 0 for key in keys]).float()
    expected = torch.stack([reference.dropout(x, rate, key, tokens) > 0 for key in keys]).float()
    assert torch.equal(kept, expected)
    assert kept.mean().item() == pytest.approx(1 - rate, abs=2e-3)
    if rate:
        flat = kept.flatten(1)
        apart = torch.corrcoef(torch.cat([flat, flat[:1].roll(1), flat[:1].roll(64)]))
        apart.fill_diagonal_(0)
        assert apart.abs().max() < 0.01  # 4 / sqrt(number of elements) would be 0.008


@pytest.mark.parametrize("ops", [reference, cpu])
def test_gelu_and_softplus_are_right_for_extreme_inputs(ops):
    x = torch.tensor([[-1e4, -90.0, -6.0, -1e-8, 0.0, 1e-8, 3.0, 90.0, 1e4]])
    gelu = ops.gelu(x.unsqueeze(0), torch.zeros(9)).flatten()
    torch.testing.assert_close(gelu, F.gelu(x.double()).float().flatten(), rtol=1e-5, atol=3e-7)
    hidden = torch.tensor([[[100.0], [-100.0]]], requires_grad=True)
    loss = ops.bce(hidden, torch.ones(1, 2, 2, 1), torch.ones(1, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == pytest.approx(100.0)
    assert torch.isfinite(hidden.grad).all()
    nan = torch.full((1, 1, 1), math.nan)
    assert ops.bce(nan, torch.ones(1, 1, 2, 1), torch.ones(1, 1, dtype=torch.bool)).isnan()
    assert ops.gelu(nan, torch.zeros(1)).isnan().all()


@pytest.mark.parametrize("form", FORMS)
def test_initial_loss_is_near_two_log_two(form):
    torch.manual_seed(0)
    model = build(form)
    loss = model.loss(**loss_inputs(some_sequences(0), model.backend.layout))
    assert loss.item() == pytest.approx(2 * math.log(2), abs=0.3)


def test_dropped_pads_have_the_mean_and_variance_of_pads_dropped_one_by_one():
    """The output of tokens that attend only to seven pads of value 1, with dropout."""
    tokens, count = 20_000, 7
    one, own_key = torch.ones(1, tokens, 1), torch.full((1, tokens, 1), -1e9)
    alone = torch.arange(tokens).unsqueeze(0)
    packing = Packing(torch.full((1, tokens), count), alone, alone, "flat")
    pad_kv = torch.tensor([[0.0], [1.0]])
    keys = torch.from_numpy(np.random.default_rng(0).integers(2**32, size=(2, 2)))
    ours = cpu.attention(one, own_key, one, packing, 50, 1, 0.5, keys, pad_kv).flatten()
    one_by_one = F.dropout(torch.full((200_000, count), 1 / count), 0.5).sum(1)
    assert ours.mean().item() == pytest.approx(one_by_one.mean().item(), rel=0.01)
    assert ours.std().item() == pytest.approx(one_by_one.std().item(), rel=0.02)


def brute_force(scores, target, seen):
    """The rank of item ``target`` (1, 2, ...) by counting; ties count against it."""
    rivals = [i for i in range(1, len(scores) + 1) if i != target and i not in seen]
    return 1 + sum(scores[i - 1] >= scores[target - 1] for i in rivals)


@pytest.mark.parametrize("count", ["count_not_lower_cpu", "count_not_lower_reference"])
@pytest.mark.parametrize(("users", "items"), [(1, 40), (20, 40), (20, 512), (513, 1100)])
def test_ranks_are_the_brute_force_ones_with_ties_against_us(monkeypatch, count, users, items):
    monkeypatch.setattr(ranking, "count_not_lower_cpu", getattr(ranking, count))
    rng = np.random.default_rng(users)
    hidden = torch.from_numpy(rng.integers(-1, 2, (users, 3))).float()  # many exact ties
    weight = torch.from_numpy(rng.integers(-1, 2, (items, 3))).float()
    targets = rng.integers(1, items + 1, users)
    seen = [rng.integers(1, items + 1, rng.integers(0, 30)) for _ in range(users)]  # with repeats
    seen[0] = np.append(seen[0], targets[0])  # a target that is a seen item is ranked, too
    offsets = np.concatenate([[0], np.cumsum([len(s) for s in seen])])
    arrays = targets, offsets, np.concatenate(seen).astype(np.int64)
    ranks = rank_targets(hidden, weight, *map(torch.from_numpy, arrays))
    scores = (hidden @ weight.T).numpy()
    for user in range(users):
        expected = brute_force(scores[user], targets[user], set(seen[user].tolist()))
        assert ranks[user] == expected


def test_copies_of_the_target_tie_with_it_exactly_wherever_they_lie():
    """A score depends only on the item, not on its position in a block."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(300, 64, generator=generator)
    weight = torch.randn(64, generator=generator).expand(1300, 64).contiguous()
    offsets, no_items = torch.zeros(301, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    targets = torch.randint(1, 1301, (300,), generator=generator)
    assert (rank_targets(hidden, weight, targets, offsets, no_items) == 1300).all()


def test_a_nan_score_ranks_last():
    hidden = torch.tensor([[math.nan]])
    no_items = torch.zeros(0, dtype=torch.long)
    offsets = torch.zeros(2, dtype=torch.long)
    assert rank_targets(hidden, torch.ones(9, 1), torch.tensor([3]), offsets, no_items) == 9


def test_metrics_by_hand():
    values = metrics(np.array([1, 2, 10, 11]), [1, 10])
    assert values["HR@1"] == 0.25
    assert values["HR@10"] == 0.75
    assert values["NDCG@10"] == pytest.approx((1 + 1 / np.log2(3) + 1 / np.log2(11)) / 4)


@pytest.mark.parametrize(
    ("key", "value"),
    [("maxlen", 0), ("heads", 3), ("hidden_dropout", 1.0), ("blocks", 0), ("eps", 0)],
)
def test_the_error_for_a_bad_size_names_it(key, value):
    with pytest.raises(ValueError, match=f"model.{key}"):
        SASRec(ITEMS, **{key: value})


@pytest.mark.slow
def test_damaged_machine_code_on_disk_is_compiled_again(tmp_path):
    code = (
        "import torch, simba\n"
        "from models.ranking import rank_targets\n"
        "p = torch.nn.Parameter(torch.ones(2)); p.sum().backward()\n"
        "simba.Lion([p], fused=True).step()\n"
        "print(p.tolist(), rank_targets(torch.ones(1, 2), torch.ones(3, 2), torch.tensor([1]),"
        " torch.tensor([0, 0]), torch.tensor([], dtype=torch.int64)).tolist())"
    )

    def output() -> str:
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
        ).stdout

    first = output()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[:10])
    assert output() == first
