"""``models.ops.Operations`` in torch operations; the docstrings of ``Operations`` apply."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.packing import Packing

WORD = 0xFFFFFFFF


def noise(index: Tensor, key: Tensor) -> Tensor:
    """32 pseudorandom bits per index: 0..2**32 - 1, int64, of the shape of ``index``.

    For a given key this is a bijection of 32-bit words. It is Wellons's "lowbias32"
    (github.com/skeeto/hash-prospector, source of the constants), except that the first word of the
    key is xored to the index and the second word is mixed in at the second step. simba/noise.py has
    a copy, because ``models`` and ``simba`` do not import each other.

    Args:
        index: int64, taken modulo 2**32.
        key: (2,) int64, two words 0..2**32 - 1.
    """
    x = (index ^ key[0]) & WORD
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & WORD
    x = ((x ^ key[1] ^ (x >> 15)) * 0x846CA68B) & WORD
    return x ^ (x >> 16)


def noise_limit(rate: float) -> int:
    """The largest noise with which dropout keeps an element. A rate of 0 keeps all elements."""
    return max(round((1 - rate) * 2**32) - 1, 0)


def dropout(x: Tensor, rate: float, key: Tensor | None, tokens: Tensor) -> Tensor:
    if key is None or rate == 0:
        return x
    index = tokens.unsqueeze(-1) * x.shape[-1] + torch.arange(x.shape[-1], device=x.device)
    return x * (noise(index, key) <= noise_limit(rate)) / (1 - rate)


def dropout_add_norm(
    x: Tensor,
    bias: Tensor,
    residual: Tensor,
    norm: nn.LayerNorm,
    rate: float,
    key: Tensor | None,
    tokens: Tensor,
) -> Tensor:
    return norm(residual + dropout(x + bias, rate, key, tokens))


def gelu(x: Tensor, bias: Tensor) -> Tensor:
    return F.gelu(x + bias)


def embed(weight: Tensor, items: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    x = F.embedding(torch.cat([items.unsqueeze(-1), candidates], dim=-1), weight)
    return x[..., 0, :], x[..., 1:, :]


def bce(hidden: Tensor, embedded: Tensor, mask: Tensor) -> Tensor:
    scores = (embedded * hidden.unsqueeze(-2)).sum(-1)  # (R, L, 1 + K)
    positive = F.softplus(-scores[..., 0])
    negative = F.softplus(scores[..., 1:]).mean(-1)
    return torch.where(mask, positive + negative, 0.0).sum() / mask.sum()


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    packing: Packing,
    maxlen: int,
    heads: int,
    rate: float,
    dropout_keys: Tensor | None,
    pad_kv: Tensor | None = None,
) -> Tensor:
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # (R, H, L, W)
    columns = torch.arange(q.shape[2], device=q.device)
    back = columns.unsqueeze(1) - columns  # (L, L), query column minus key column
    visible = (back >= 0) & (columns >= packing.starts.unsqueeze(-1))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # (R, H, L, L)
    scores = scores.masked_fill(~visible.unsqueeze(1), -math.inf)
    if pad_kv is not None:
        num_pads = packing.num_pads()[:, None, :, None]  # (R, 1, L, 1)
        pad_k, pad_v = (x.view(1, heads, 1, -1) for x in pad_kv)
        # n equal keys have the softmax weight of one key with log n added to its score
        pad_scores = q @ pad_k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + num_pads.log()
        weights = torch.softmax(torch.cat([scores, pad_scores], dim=-1), dim=-1)
        weights, pad_weight = weights[..., :-1], weights[..., -1:]
    else:
        weights = torch.softmax(scores, -1)
    if dropout_keys is not None and rate > 0:
        by_head = torch.arange(heads, device=q.device).view(-1, 1, 1)
        first = (packing.tokens[:, None, :, None] * heads + by_head) * maxlen  # (R, H, L, 1)
        weights = weights * (noise(first + back, dropout_keys[0]) <= noise_limit(rate)) / (1 - rate)
        if pad_kv is not None:
            pad = torch.arange(maxlen, device=q.device)
            kept = (noise(first + pad, dropout_keys[1]) <= noise_limit(rate)) & (pad < num_pads)
            num_kept = kept.sum(-1, keepdim=True)
            pad_weight = pad_weight * num_kept / (num_pads.clamp(min=1) * (1 - rate))
    attended = weights @ v
    if pad_kv is not None:
        attended = attended + pad_weight * pad_v
    return attended.transpose(1, 2).flatten(2)


def attention_at(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slots: Tensor,
    packing: Packing,
    heads: int,
    pad_kv: Tensor | None = None,
) -> Tensor:
    width = k.shape[1]
    rows, columns = slots // width, slots % width
    q = q.unflatten(-1, (heads, -1))  # (Q, H, W)
    k, v = (x.unflatten(-1, (heads, -1))[rows] for x in (k, v))  # (Q, L, H, W)
    key_columns = torch.arange(width, device=q.device)
    starts = packing.starts.flatten()[slots]
    visible = (key_columns <= columns[:, None]) & (key_columns >= starts[:, None])
    scores = torch.einsum("qhd,qlhd->qhl", q, k) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(~visible[:, None], -math.inf)
    if pad_kv is None:
        return torch.einsum("qhl,qlhd->qhd", torch.softmax(scores, -1), v).flatten(1)
    pad_k, pad_v = (x.view(heads, -1) for x in pad_kv)
    num_pads = packing.num_pads().flatten()[slots][:, None, None]
    pad_scores = torch.einsum("qhd,hd->qh", q, pad_k)[..., None] / math.sqrt(q.shape[-1])
    weights = torch.softmax(torch.cat([scores, pad_scores + num_pads.log()], dim=-1), dim=-1)
    attended = torch.einsum("qhl,qlhd->qhd", weights[..., :-1], v)
    return (attended + weights[..., -1:] * pad_v).flatten(1)
