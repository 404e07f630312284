"""SASRec in two published forms, on packed sequences: the tokens of a batch, hardly any padding.

A batch is a few rows of L slots, and a row holds several users' sequences end to end: ``items`` is
(R, L), 1..num_items and 0 in an empty slot, and a ``Packing`` says whose token is where.

Dropout takes place where ``keys`` are given: two words for each of the model's ``num_keys`` places.
"""

import math
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import plain
from models.plain import Packing

KEYS_PER_BLOCK = 4  # attention weights, pads, and two around the feed-forward layer


class PackedTransformer(nn.Module):
    """Embeddings, loss and hidden states; a form adds ``embedded`` and its blocks.

    ``ops`` is the module that its operations come from: ``models.plain`` anywhere, or
    ``models.fast`` for float32 on a CPU and batches of one row.

    Raises:
        ValueError: a size is below 1, a rate outside [0, 1) or heads do not divide hidden.
    """

    blocks: nn.ModuleList

    def __init__(self, num_items: int, maxlen: int, hidden: int, heads: int, blocks: int) -> None:
        super().__init__()
        sizes = {"maxlen": maxlen, "hidden": hidden, "heads": heads, "blocks": blocks}
        for name, value in sizes.items():
            _require(isinstance(value, int) and value >= 1, name, value, "an integer >= 1")
        _require(hidden % heads == 0, "heads", heads, f"a divisor of hidden={hidden}")
        self.ops: ModuleType = plain
        self.maxlen = maxlen
        self.num_keys = 1 + KEYS_PER_BLOCK * blocks
        self.item = nn.Embedding(num_items + 1, hidden)  # row 0: empty slots
        self.position = nn.Embedding(maxlen, hidden)

    def embedded(self, x: Tensor, packing: Packing, key: Tensor | None) -> Tensor:
        """The first block's input (R, L, D) from item embeddings ``x`` (R, L, D)."""
        raise NotImplementedError

    def finished(self, x: Tensor) -> Tensor:
        """What follows the last block."""
        return x

    def loss(
        self,
        items: Tensor,
        packing: Packing,
        targets: Tensor,
        negatives: Tensor,
        keys: Tensor | None = None,
    ) -> Tensor:
        """BCE, mean over real targets: ``mean softplus(-pos) + mean softplus(neg)``.

        ``targets`` is (R, L), 0 in empty slots; ``negatives`` (R, L, K). 2 ln 2 for zero scores.
        """
        wanted = torch.cat([targets.unsqueeze(-1), negatives], dim=-1)
        x, embedded = self.ops.embed(self.item.weight, items, wanted)
        x = self.embedded(x, packing, None if keys is None else keys[0])
        for block, block_keys in zip(self.blocks, self._per_block(keys), strict=True):
            x = block(self.ops, x, packing, block_keys)
        return self.ops.bce(self.finished(x), embedded, targets > 0)

    forward = loss  # what torch.func.functional_call runs

    def states(self, items: Tensor, packing: Packing, slots: Tensor) -> Tensor:
        """Hidden states (Q, D), without dropout, in ``slots`` (Q,) counted through all rows.

        The last block is computed for them alone.
        """
        x = self.embedded(F.embedding(items, self.item.weight), packing, None)
        for block in self.blocks[:-1]:
            x = block(self.ops, x, packing, None)
        last: Any = self.blocks[-1]
        return self.finished(last.at(self.ops, x, packing, slots))

    def item_weight(self) -> Tensor:
        """(num_items, D): row i - 1 is item i. A score is its dot product with a hidden state."""
        return self.item.weight[1:]

    def _per_block(self, keys: Tensor | None) -> list[Tensor | None]:
        if keys is None:
            return [None] * len(self.blocks)
        return list(keys[1:].split(KEYS_PER_BLOCK))


class SASRec(PackedTransformer):
    """Post-norm: LayerNorm after each residual sum, GELU, padded keys masked. The note's own form.

    Args:
        num_items: items are 1..num_items.
        maxlen: longest input sequence, in items.
        hidden: D.
        blocks: number of attention + feed-forward blocks.
        heads: attention heads, a divisor of hidden.
        ffn: width of the feed-forward layer.
        hidden_dropout: rate on embeddings and on both sublayers' outputs.
        attention_dropout: rate on attention weights.
        eps: LayerNorm's epsilon.
    """

    def __init__(
        self,
        num_items: int,
        maxlen: int = 50,
        hidden: int = 64,
        blocks: int = 2,
        heads: int = 1,
        ffn: int = 256,
        hidden_dropout: float = 0.2,
        attention_dropout: float = 0.5,
        eps: float = 1e-12,
    ) -> None:
        super().__init__(num_items, maxlen, hidden, heads, blocks)
        _require_block(ffn, eps)
        _require_rate("hidden_dropout", hidden_dropout)
        _require_rate("attention_dropout", attention_dropout)
        self.hidden_dropout = hidden_dropout
        self.norm = nn.LayerNorm(hidden, eps)
        self.blocks = nn.ModuleList(
            PostNormBlock(maxlen, hidden, heads, ffn, hidden_dropout, attention_dropout, eps)
            for _ in range(blocks)
        )
        for embedding in (self.item, self.position):
            nn.init.xavier_normal_(embedding.weight)

    def embedded(self, x: Tensor, packing: Packing, key: Tensor | None) -> Tensor:
        x = self.norm(x + F.embedding(packing.positions, self.position.weight))
        return self.ops.dropout(x, self.hidden_dropout, key, packing.tokens)


class PostNormBlock(nn.Module):
    def __init__(
        self,
        maxlen: int,
        hidden: int,
        heads: int,
        ffn: int,
        dropout: float,
        attention_dropout: float,
        eps: float,
    ) -> None:
        super().__init__()
        self.maxlen, self.heads = maxlen, heads
        self.dropout, self.attention_dropout = dropout, attention_dropout
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, eps)
        self.widen = nn.Linear(hidden, ffn)
        self.narrow = nn.Linear(ffn, hidden)
        self.ffn_norm = nn.LayerNorm(hidden, eps)
        for weight in self.qkv.weight.chunk(3):  # three layers that lie together
            nn.init.xavier_normal_(weight)
        nn.init.zeros_(self.qkv.bias)
        for linear in (self.out, self.widen, self.narrow):
            nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, ops: ModuleType, x: Tensor, packing: Packing, keys: Tensor | None) -> Tensor:
        """(R, L, D) to (R, L, D)."""
        attention = Projections(self.qkv.weight, self.qkv.bias, self.out.weight, self.heads)
        q, k, v = attention.query(x), attention.key(x), attention.value(x)
        rate = self.attention_dropout
        attended = ops.attention(q, k, v, packing, self.maxlen, self.heads, rate, _first_two(keys))
        return self._rest(ops, x, attention.output(attended), keys, packing.tokens)

    def at(self, ops: ModuleType, x: Tensor, packing: Packing, slots: Tensor) -> Tensor:
        """(R, L, D) to (Q, D): the same in some slots only, without dropout."""
        own = x.flatten(0, 1)[slots]
        attention = Projections(self.qkv.weight, self.qkv.bias, self.out.weight, self.heads)
        q, k, v = attention.query(own), attention.key(x), attention.value(x)
        attended = ops.attention_at(q, k, v, slots, packing, self.heads)
        return self._rest(ops, own, attention.output(attended), None, slots)

    def _rest(
        self, ops: ModuleType, x: Tensor, attended: Tensor, keys: Tensor | None, tokens: Tensor
    ) -> Tensor:
        first, second = _last_two(keys)
        norm = self.attention_norm
        x = ops.dropout_add_norm(attended, self.out.bias, x, norm, self.dropout, first, tokens)
        wide = ops.gelu(F.linear(x, self.widen.weight), self.widen.bias)
        y = F.linear(wide, self.narrow.weight)
        norm = self.ffn_norm
        return ops.dropout_add_norm(y, self.narrow.bias, x, norm, self.dropout, second, tokens)


class SASRecPreNorm(PackedTransformer):
    """Pre-norm: the query is normalised, key and value are not; pads take part in every softmax.

    Args:
        num_items: items are 1..num_items.
        maxlen: longest input sequence, in items; its unfilled part counts as pads.
        hidden: D, also the width of the feed-forward layer.
        blocks: number of attention + feed-forward blocks.
        heads: attention heads, a divisor of hidden.
        dropout: the one rate, everywhere.
        eps: LayerNorm's epsilon.
    """

    def __init__(
        self,
        num_items: int,
        maxlen: int = 50,
        hidden: int = 64,
        blocks: int = 2,
        heads: int = 1,
        dropout: float = 0.5,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(num_items, maxlen, hidden, heads, blocks)
        _require_block(hidden, eps)
        _require_rate("dropout", dropout)
        self.dropout = dropout
        self.blocks = nn.ModuleList(
            PreNormBlock(maxlen, hidden, heads, dropout, eps) for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(hidden, eps)
        for embedding in (self.item, self.position):
            nn.init.xavier_normal_(embedding.weight)

    def embedded(self, x: Tensor, packing: Packing, key: Tensor | None) -> Tensor:
        x = math.sqrt(x.shape[-1]) * x + F.embedding(packing.positions, self.position.weight)
        return self.ops.dropout(x, self.dropout, key, packing.tokens)

    def finished(self, x: Tensor) -> Tensor:
        return self.norm(x)


class PreNormBlock(nn.Module):
    """A pad is a zero row: its key and value are the biases of their projection. All of a
    sequence's pads, the slots to its left, are thus copies of one null key."""

    def __init__(self, maxlen: int, hidden: int, heads: int, dropout: float, eps: float) -> None:
        super().__init__()
        self.maxlen, self.heads, self.dropout = maxlen, heads, dropout
        self.query_norm = nn.LayerNorm(hidden, eps)
        self.qkv_weight = nn.Parameter(torch.empty(3 * hidden, hidden))
        self.qkv_bias = nn.Parameter(torch.zeros(3 * hidden))
        self.out = nn.Linear(hidden, hidden)
        self.ffn_norm = nn.LayerNorm(hidden, eps)
        self.first = nn.Linear(hidden, hidden)
        self.second = nn.Linear(hidden, hidden)
        nn.init.xavier_uniform_(self.qkv_weight)
        nn.init.xavier_normal_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, ops: ModuleType, x: Tensor, packing: Packing, keys: Tensor | None) -> Tensor:
        """(R, L, D) to (R, L, D)."""
        attention = Projections(self.qkv_weight, self.qkv_bias, self.out.weight, self.heads)
        q, k, v = attention.query(self.query_norm(x)), attention.key(x), attention.value(x)
        how = self.maxlen, self.heads, self.dropout, _first_two(keys), attention.null()
        attended = ops.attention(q, k, v, packing, *how)
        return self._rest(ops, x, attention.output(attended), keys, packing.tokens)

    def at(self, ops: ModuleType, x: Tensor, packing: Packing, slots: Tensor) -> Tensor:
        """(R, L, D) to (Q, D): the same in some slots only, without dropout."""
        own = x.flatten(0, 1)[slots]
        attention = Projections(self.qkv_weight, self.qkv_bias, self.out.weight, self.heads)
        q, k, v = attention.query(self.query_norm(own)), attention.key(x), attention.value(x)
        attended = ops.attention_at(q, k, v, slots, packing, self.heads, attention.null())
        return self._rest(ops, own, attention.output(attended), None, slots)

    def _rest(
        self, ops: ModuleType, x: Tensor, attended: Tensor, keys: Tensor | None, tokens: Tensor
    ) -> Tensor:
        first, second = _last_two(keys)
        x = self.ffn_norm(attended + self.out.bias + x)
        wide = F.relu(ops.dropout(self.first(x), self.dropout, first, tokens))
        return x + ops.dropout(self.second(wide), self.dropout, second, tokens)


class Projections:
    """The linear maps around attention; for one head, two where the weights are four.

    A score needs query and key only as ``(x Wq' + bq) (y Wk' + bk)'``, where ``bk`` adds the same
    to all scores of a softmax: so the query is taken through ``Wk`` too and ``y`` is its own key.
    A weighted sum of values passes through ``Wo`` as a whole: so the values do before it. One
    head's map keeps its size thereby; several heads' would not.

    Args:
        weight, bias: (3D, D) and (3D,) of query, key and value, as nn.Linear has them.
        out: (D, D), Wo; its bias is left to the caller.
    """

    def __init__(self, weight: Tensor, bias: Tensor, out: Tensor, heads: int) -> None:
        (wq, wk, wv), (bq, bk, bv) = weight.chunk(3), bias.chunk(3)
        self.one_head = heads == 1
        if self.one_head:
            self.q = wk.T @ wq, bq @ wk
            self.v = out @ wv, out @ bv
            self.null_key = torch.zeros_like(bk)
        else:
            self.q, self.k, self.v, self.out = (wq, bq), (wk, bk), (wv, bv), out
            self.null_key = bk

    def query(self, x: Tensor) -> Tensor:
        return F.linear(x, *self.q)

    def key(self, x: Tensor) -> Tensor:
        return x if self.one_head else F.linear(x, *self.k)

    def value(self, x: Tensor) -> Tensor:
        return F.linear(x, *self.v)

    def output(self, attended: Tensor) -> Tensor:
        return attended if self.one_head else F.linear(attended, self.out)

    def null(self) -> Tensor:
        """(2, D): key and value of a row of zeros."""
        return torch.stack([self.null_key, self.v[1]])


def _first_two(keys: Tensor | None) -> Tensor | None:
    return None if keys is None else keys[:2]


def _last_two(keys: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if keys is None else (keys[2], keys[3])


def _require(valid: bool, name: str, value: object, expected: str) -> None:
    if not valid:
        raise ValueError(f"model.{name} must be {expected}, got {value!r}")


def _require_rate(name: str, value: float) -> None:
    _require(isinstance(value, int | float) and 0 <= value < 1, name, value, "a number in [0, 1)")


def _require_block(ffn: int, eps: float) -> None:
    _require(isinstance(ffn, int) and ffn >= 1, "ffn", ffn, "an integer >= 1")
    _require(isinstance(eps, int | float) and eps > 0, "eps", eps, "a number > 0")
