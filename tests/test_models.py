"""Packed SASRec against a plain forward pass, user by user and, where it can be, loop by loop."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from data.sequences import Sequences, training_batches
from models.ranking import metrics, rank_targets
from models.sasrec import SASRec, SASRecPreNorm

MAXLEN, ITEMS, HIDDEN = 12, 50, 8


def attention(q, k, v, first, heads):
    """Row t looks at rows first..t, head by head: the textbook loops."""
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


def plain_postnorm(model, items):
    pads = MAXLEN - len(items)
    x = model.item.weight[items] + model.position.weight[pads:]
    x = model.norm(x)
    for block in model.blocks:
        a = attention(block.query(x), block.key(x), block.value(x), 0, block.heads)
        x = block.attention_norm(x + block.out(a))
        x = block.ffn_norm(x + block.narrow(F.gelu(block.widen(x))))
    return x


def plain_prenorm(model, items):
    """Pads are rows of their own here: zero, to the left, looked at by everyone."""
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


FORMS = {
    "post": (lambda **kw: SASRec(ITEMS, MAXLEN, HIDDEN, ffn=16, **kw), plain_postnorm),
    "pre": (lambda **kw: SASRecPreNorm(ITEMS, MAXLEN, HIDDEN, **kw), plain_prenorm),
}


def sequences(seed: int) -> Sequences:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 20, size=30)  # users of 1 item and users beyond maxlen among them
    items = [rng.choice(np.arange(1, ITEMS + 1), n, replace=False) for n in lengths]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Sequences(np.concatenate(items).astype(np.int32), offsets, ITEMS)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(3))
def test_packed_loss_and_gradients_are_the_plain_ones(form, heads, seed):
    build, plain = FORMS[form]
    torch.manual_seed(seed)
    model = build(heads=heads).double().eval()
    for p in model.parameters():  # zero biases would hide mistakes
        torch.nn.init.normal_(p, std=0.3)
    data = sequences(seed)
    (batch,) = training_batches(data, np.random.default_rng(seed), 100, MAXLEN, 2)
    tensors = [
        torch.from_numpy(a)
        for a in (batch.items, batch.positions, batch.starts, batch.targets, batch.negatives)
    ]
    loss = model.loss(*tensors)
    loss.backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()

    positive, negative = [], []
    items, _, starts, targets, negatives = tensors
    for row in range(len(items)):
        for start in sorted({int(starts[row, c]) for c in range(MAXLEN) if items[row, c] > 0}):
            slots = [c for c in range(MAXLEN) if items[row, c] > 0 and starts[row, c] == start]
            h = plain(model, items[row, slots].tolist())
            for state, slot in zip(h, slots, strict=True):
                positive.append(F.softplus(-state @ model.item.weight[targets[row, slot]]))
                for negative_item in negatives[row, slot]:
                    negative.append(F.softplus(state @ model.item.weight[negative_item]))
    expected = torch.stack(positive).mean() + torch.stack(negative).mean()
    expected.backward()
    assert len(positive) == data.num_targets(MAXLEN)
    torch.testing.assert_close(loss, expected)
    for name, p in model.named_parameters():
        grad = torch.zeros_like(p) if p.grad is None else p.grad
        torch.testing.assert_close(ours[name], grad, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("form", FORMS)
def test_initial_loss_is_near_two_log_two(form):
    torch.manual_seed(0)
    model = FORMS[form][0]().eval()
    (batch,) = training_batches(sequences(0), np.random.default_rng(0), 100, MAXLEN, 1)
    arrays = batch.items, batch.positions, batch.starts, batch.targets, batch.negatives
    loss = model.loss(*map(torch.from_numpy, arrays))
    assert loss.item() == pytest.approx(2 * math.log(2), abs=0.3)


def test_dropped_pads_have_the_mean_and_variance_of_pads_dropped_one_by_one():
    torch.manual_seed(0)
    block = FORMS["pre"][0](dropout=0.5).blocks[0].train()
    pads, weight = 7, 0.7
    counts = torch.full((200_000, 1), float(pads))
    ours = block._drop_pads(torch.full_like(counts, weight), counts)
    one_by_one = F.dropout(torch.full((200_000, pads), weight / pads), 0.5).sum(1)
    assert ours.mean().item() == pytest.approx(one_by_one.mean().item(), rel=0.01)
    assert ours.std().item() == pytest.approx(one_by_one.std().item(), rel=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_ranks_are_the_brute_force_ones_with_ties_against_us(seed):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randint(-1, 2, (20, 3), generator=generator).float()  # many exact ties
    weight = torch.randint(-1, 2, (40, 3), generator=generator).float()
    targets = torch.randint(1, 41, (20,), generator=generator)
    pairs = torch.stack(
        [torch.randint(0, 20, (90,), generator=generator), torch.randint(1, 41, (90,))]
    )
    ranks = rank_targets(hidden, weight, targets, pairs[0], pairs[1])
    seen = {(int(u), int(i)) for u, i in pairs.T}
    for user, target in enumerate(targets.tolist()):
        scores = [(hidden[user] * w).sum().item() for w in weight]
        rivals = [i for i in range(1, 41) if i != target and (user, i) not in seen]
        better = sum(scores[i - 1] >= scores[target - 1] for i in rivals)
        assert ranks[user] == 1 + better


def test_a_nan_score_ranks_last():
    hidden = torch.tensor([[math.nan]])
    nobody = torch.zeros(0, dtype=torch.long)
    assert rank_targets(hidden, torch.ones(9, 1), torch.tensor([3]), nobody, nobody) == 9


def test_metrics_by_hand():
    found = metrics(np.array([1, 2, 10, 11]), [1, 10])
    assert found["HR@1"] == 0.25
    assert found["HR@10"] == 0.75
    assert found["NDCG@10"] == pytest.approx((1 + 1 / np.log2(3) + 1 / np.log2(11)) / 4)


@pytest.mark.parametrize(
    ("key", "value"),
    [("maxlen", 0), ("heads", 3), ("hidden_dropout", 1.0), ("blocks", 0), ("eps", 0)],
)
def test_names_a_bad_size(key, value):
    with pytest.raises(ValueError, match=f"model.{key}"):
        SASRec(ITEMS, **{key: value})
