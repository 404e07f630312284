"""What SASRec is made of, in plain torch: any device, any float type, differentiable, vmappable.

models/fast.py holds the same functions for a core of a CPU. Shapes: R rows, L slots a row, D hidden
size, H heads, K negatives, M the longest sequence.

Dropout here is a function, not a generator: an element is dropped where 32 bits mixed from its
place and the layer's key fall beyond the rate. Its place is counted by the token's number in the
batch, so it does not matter where a batch's packing put the token. A key is two words (2,) of a
tensor, drawn for each step and layer; None stands for no dropout. The same seed thus drops the same
elements on a CPU, on a GPU, in either packing and in runs trained together.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WORD = 0xFFFFFFFF


class Packing(NamedTuple):
    """Where the tokens of a batch lie: three integer tensors (R, L).

    - ``positions``: the slot that the token would have in a sequence left-padded to M;
    - ``starts``: the column in which the token's sequence begins; an empty slot is its own start;
    - ``tokens``: the token's number in the batch; any number in an empty slot.
    """

    positions: Tensor
    starts: Tensor
    tokens: Tensor


def noise(index: Tensor, key: Tensor) -> Tensor:
    """32 random bits, as int64, for every index (int64, taken modulo 2**32) under a key (2,).

    A bijective mix in the manner of Wellons's "lowbias32" (github.com/skeeto/hash-prospector, whose
    constants these are), with the second word entered halfway.
    """
    x = (index ^ key[0]) & WORD
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & WORD
    x = ((x ^ key[1] ^ (x >> 15)) * 0x846CA68B) & WORD
    return x ^ (x >> 16)


def bound(rate: float) -> int:
    """An element stays where its noise is at most this; all of them for a rate of 0."""
    return max(round((1 - rate) * 2**32) - 1, 0)


def dropout(x: Tensor, rate: float, key: Tensor | None, tokens: Tensor) -> Tensor:
    """(R, L, D); element d of token t is number t * D + d."""
    if key is None or rate == 0:
        return x
    index = tokens.unsqueeze(-1) * x.shape[-1] + torch.arange(x.shape[-1], device=x.device)
    return x * (noise(index, key) <= bound(rate)) / (1 - rate)


def dropout_add_norm(
    x: Tensor,
    bias: Tensor,
    residual: Tensor,
    norm: nn.LayerNorm,
    rate: float,
    key: Tensor | None,
    tokens: Tensor,
) -> Tensor:
    """LayerNorm(residual + dropout(x + bias)), (R, L, D) but for bias (D,)."""
    return norm(residual + dropout(x + bias, rate, key, tokens))


def gelu(x: Tensor, bias: Tensor) -> Tensor:
    """GELU of x + bias."""
    return F.gelu(x + bias)


def embed(weight: Tensor, items: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of ``weight`` for the inputs and for the scored items: one gather, one gradient."""
    x = F.embedding(torch.cat([items.unsqueeze(-1), wanted], dim=-1), weight)
    return x[..., 0, :], x[..., 1:, :]


def bce(hidden: Tensor, embedded: Tensor, real: Tensor) -> Tensor:
    """``mean softplus(-positive) + mean softplus(negative)`` over real targets.

    Args:
        hidden: (R, L, D). embedded: (R, L, 1 + K, D), target first. real: (R, L), booleans.
    """
    scores = (embedded * hidden.unsqueeze(-2)).sum(-1)  # (R, L, 1 + K)
    positive = F.softplus(-scores[..., 0])
    negative = F.softplus(scores[..., 1:]).mean(-1)
    return torch.where(real, positive + negative, 0.0).sum() / real.sum()


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    packing: Packing,
    maxlen: int,
    heads: int,
    rate: float,
    keys: Tensor | None,
    null: Tensor | None = None,
) -> Tensor:
    """Softmax attention (R, L, D) of every token over its own sequence up to itself.

    Args:
        q, k, v: (R, L, D).
        maxlen: M. Of token t and head h, the weight of the token j places before it is number
            (t * H + h) * M + j for dropout, and so is pad j under the second key.
        keys: (2, 2), for the dropout of weights and of pads.
        null: (2, D), key and value of a pad: with it a token also sees the pads that its
            sequence has on the left, as one key whose weight is multiplied by their number.
            Each pad is dropped by itself.
    """
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # (R, H, L, W)
    columns = torch.arange(q.shape[2], device=q.device)
    back = columns.unsqueeze(1) - columns  # (L, L): how far the key lies before the query
    visible = (back >= 0) & (columns >= packing.starts.unsqueeze(-1))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # (R, H, L, L)
    scores = scores.masked_fill(~visible.unsqueeze(1), -math.inf)
    if null is not None:
        counts = pads(packing)[:, None, :, None]  # (R, 1, L, 1)
        null_k, null_v = (x.view(1, heads, 1, -1) for x in null)
        null_scores = q @ null_k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + counts.log()
        weights = torch.softmax(torch.cat([scores, null_scores], dim=-1), dim=-1)
        weights, null_weight = weights[..., :-1], weights[..., -1:]
    else:
        weights = torch.softmax(scores, -1)
    if keys is not None and rate > 0:
        by_head = torch.arange(heads, device=q.device).view(-1, 1, 1)
        first = (packing.tokens[:, None, :, None] * heads + by_head) * maxlen  # (R, H, L, 1)
        weights = weights * (noise(first + back, keys[0]) <= bound(rate)) / (1 - rate)
        if null is not None:
            pad = torch.arange(maxlen, device=q.device)
            kept = (noise(first + pad, keys[1]) <= bound(rate)) & (pad < counts)
            left = kept.sum(-1, keepdim=True)
            null_weight = null_weight * left / (counts.clamp(min=1) * (1 - rate))
    attended = weights @ v
    if null is not None:
        attended = attended + null_weight * null_v
    return attended.transpose(1, 2).flatten(2)


def attention_at(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slots: Tensor,
    packing: Packing,
    heads: int,
    null: Tensor | None = None,
) -> Tensor:
    """The same, without dropout, for the tokens in a few slots only: (Q, D).

    Args:
        q: (Q, D), queries of the tokens in ``slots`` (Q,), counted through all rows.
        k, v: (R, L, D), of all tokens.
    """
    width = k.shape[1]
    rows, columns = slots // width, slots % width
    q = q.unflatten(-1, (heads, -1))  # (Q, H, W)
    k, v = (x.unflatten(-1, (heads, -1))[rows] for x in (k, v))  # (Q, L, H, W)
    at = torch.arange(width, device=q.device)
    visible = (at <= columns[:, None]) & (at >= packing.starts.flatten()[slots][:, None])
    scores = torch.einsum("qhd,qlhd->qhl", q, k) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(~visible[:, None], -math.inf)
    if null is None:
        return torch.einsum("qhl,qlhd->qhd", torch.softmax(scores, -1), v).flatten(1)
    null_k, null_v = (x.view(heads, -1) for x in null)
    counts = pads(packing).flatten()[slots][:, None, None]
    null_scores = torch.einsum("qhd,hd->qh", q, null_k)[..., None] / math.sqrt(q.shape[-1])
    weights = torch.softmax(torch.cat([scores, null_scores + counts.log()], dim=-1), dim=-1)
    attended = torch.einsum("qhl,qlhd->qhd", weights[..., :-1], v)
    return (attended + weights[..., -1:] * null_v).flatten(1)


def pads(packing: Packing) -> Tensor:
    """(R, L): how many slots a left-padded sequence has before its first item."""
    columns = torch.arange(packing.positions.shape[1], device=packing.positions.device)
    return packing.positions - (columns - packing.starts)
