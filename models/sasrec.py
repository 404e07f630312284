"""SASRec (Kang and McAuley, 2018, arxiv.org/abs/1808.09781) in two published forms.

Both work on packed sequences, see ``models.packing``. Sizes: R rows of L slots, K negatives per
target, D hidden size, Q queried tokens.
"""

import math
from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.checks import require, require_maxlen, require_rate, require_size
from models.contract import SequenceModel
from models.ops import Operations
from models.packing import Packing

# Attention to tokens, attention to pads, and the two other dropouts of a block.
DROPOUT_KEYS_PER_BLOCK = 4


class PackedTransformer(SequenceModel):
    """The common part of both forms: item embeddings, transformer blocks and the loss.

    A subclass sets the module list ``blocks`` and defines the method ``embed_inputs``, and
    ``final_norm`` if it has one.

    Args:
        num_items: items are 1..num_items.
        maxlen: longest input sequence, in items.
        hidden: D.
        heads: attention heads, a divisor of hidden.
        blocks: the number of transformer blocks.

    Raises:
        ValueError: a size is too small, or heads do not divide hidden.
    """

    blocks: nn.ModuleList

    def __init__(self, num_items: int, maxlen: int, hidden: int, heads: int, blocks: int) -> None:
        require_maxlen(maxlen)
        for name, value in {"hidden": hidden, "heads": heads, "blocks": blocks}.items():
            require_size(name, value)
        require(hidden % heads == 0, "heads", heads, f"a divisor of hidden={hidden}")
        super().__init__(maxlen, num_dropout_keys=1 + DROPOUT_KEYS_PER_BLOCK * blocks)
        self.item = nn.Embedding(num_items + 1, hidden)  # row 0 is for empty slots
        self.position = nn.Embedding(maxlen, hidden)

    @abstractmethod
    def embed_inputs(
        self, ops: Operations, x: Tensor, packing: Packing, dropout_key: Tensor | None
    ) -> Tensor:
        """The input (R, L, D) of the first block, from the item embeddings ``x`` (R, L, D)."""

    def final_norm(self, x: Tensor) -> Tensor:
        """The normalization of x (..., D) after the last block; the identity by default."""
        return x

    def loss(
        self,
        items: Tensor,
        packing: Packing,
        targets: Tensor,
        negatives: Tensor,
        dropout_keys: Tensor | None = None,
    ) -> Tensor:
        """Binary cross-entropy: mean softplus(-positive score) + mean softplus(negative score).

        The means are over slots with a target. If all scores are 0, the loss is 2 ln 2. See
        ``SequenceModel.loss`` for arguments and errors.
        """
        ops = self.backend.ops_for(packing)
        candidates = torch.cat([targets.unsqueeze(-1), negatives], dim=-1)
        x, candidate_embeddings = ops.embed(self.item.weight, items, candidates)
        x = self.embed_inputs(ops, x, packing, None if dropout_keys is None else dropout_keys[0])
        for block, block_dropout_keys in zip(
            self.blocks, self._dropout_keys_per_block(dropout_keys), strict=True
        ):
            x = block(ops, x, packing, block_dropout_keys)
        return ops.bce(self.final_norm(x), candidate_embeddings, targets > 0)

    def hidden_states(self, items: Tensor, packing: Packing, slots: Tensor) -> Tensor:
        ops = self.backend.ops_for(packing)
        x = self.embed_inputs(ops, F.embedding(items, self.item.weight), packing, None)
        for block in self.blocks[:-1]:
            x = block(ops, x, packing, None)
        last: Any = self.blocks[-1]  # of the last block, only the outputs in ``slots`` are needed
        return self.final_norm(last.at_slots(ops, x, packing, slots))

    def item_weight(self) -> Tensor:
        return self.item.weight[1:]

    def _dropout_keys_per_block(self, dropout_keys: Tensor | None) -> list[Tensor | None]:
        if dropout_keys is None:
            return [None] * len(self.blocks)
        return list(dropout_keys[1:].split(DROPOUT_KEYS_PER_BLOCK))


class SASRec(PackedTransformer):
    """The post-norm form: LayerNorm after each residual sum, GELU, no attention to pads.

    Args:
        num_items: items are 1..num_items.
        maxlen: longest input sequence, in items.
        hidden: D.
        blocks: the number of transformer blocks (attention and feed-forward layer).
        heads: attention heads, a divisor of hidden.
        ffn: width of the feed-forward layer.
        hidden_dropout: dropout rate of embeddings and of both sublayers' outputs.
        attention_dropout: dropout rate of attention weights.
        eps: LayerNorm's epsilon.

    Raises:
        ValueError: a size is too small, heads do not divide hidden, a rate is outside [0, 1), or
            eps is not above 0.
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
        require_size("ffn", ffn)
        _require_eps(eps)
        require_rate("hidden_dropout", hidden_dropout)
        require_rate("attention_dropout", attention_dropout)
        self.hidden_dropout = hidden_dropout
        self.norm = nn.LayerNorm(hidden, eps)
        self.blocks = nn.ModuleList(
            PostNormBlock(maxlen, hidden, heads, ffn, hidden_dropout, attention_dropout, eps)
            for _ in range(blocks)
        )
        for embedding in (self.item, self.position):
            nn.init.xavier_normal_(embedding.weight)

    def embed_inputs(
        self, ops: Operations, x: Tensor, packing: Packing, dropout_key: Tensor | None
    ) -> Tensor:
        x = self.norm(x + F.embedding(packing.positions, self.position.weight))
        return ops.dropout(x, self.hidden_dropout, dropout_key, packing.tokens)


class PostNormBlock(nn.Module):
    """x = LayerNorm(x + dropout(attention(x))), then x = LayerNorm(x + dropout(FFN(x)))."""

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
        for weight in self.qkv.weight.chunk(3):  # query, key and value are separate matrices
            nn.init.xavier_normal_(weight)
        nn.init.zeros_(self.qkv.bias)
        for linear in (self.out, self.widen, self.narrow):
            nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self, ops: Operations, x: Tensor, packing: Packing, dropout_keys: Tensor | None
    ) -> Tensor:
        """(R, L, D) -> (R, L, D). ``dropout_keys``: (4, 2) int64, or None: no dropout."""
        attention = Projections(self.qkv.weight, self.qkv.bias, self.out.weight, self.heads)
        q, k, v = attention.query(x), attention.key(x), attention.value(x)
        rate = self.attention_dropout
        attended = ops.attention(
            q, k, v, packing, self.maxlen, self.heads, rate, _attention_dropout_keys(dropout_keys)
        )
        return self._after_attention(
            ops, x, attention.output(attended), dropout_keys, packing.tokens
        )

    def at_slots(self, ops: Operations, x: Tensor, packing: Packing, slots: Tensor) -> Tensor:
        """(R, L, D) -> (Q, D): the outputs in the slots (Q,) only, without dropout."""
        queried = x.flatten(0, 1)[slots]
        attention = Projections(self.qkv.weight, self.qkv.bias, self.out.weight, self.heads)
        q, k, v = attention.query(queried), attention.key(x), attention.value(x)
        attended = ops.attention_at(q, k, v, slots, packing, self.heads)
        return self._after_attention(ops, queried, attention.output(attended), None, slots)

    def _after_attention(
        self,
        ops: Operations,
        x: Tensor,
        attended: Tensor,
        dropout_keys: Tensor | None,
        tokens: Tensor,
    ) -> Tensor:
        dropout_key1, dropout_key2 = _other_dropout_keys(dropout_keys)
        norm = self.attention_norm
        x = ops.dropout_add_norm(
            attended, self.out.bias, x, norm, self.dropout, dropout_key1, tokens
        )
        wide = ops.gelu(F.linear(x, self.widen.weight), self.widen.bias)
        y = F.linear(wide, self.narrow.weight)
        norm = self.ffn_norm
        return ops.dropout_add_norm(
            y, self.narrow.bias, x, norm, self.dropout, dropout_key2, tokens
        )


class SASRecPreNorm(PackedTransformer):
    """The pre-norm form, which attends to pads.

    The note's author published results of this form with Adam (RecBoard).
    Attention normalizes its query but not its key and value. Every sequence is treated as
    left-padded to ``maxlen``, and tokens attend to these pads as to other tokens.

    Args:
        num_items: items are 1..num_items.
        maxlen: longest input sequence, in items.
        hidden: D, also the width of the feed-forward layer.
        blocks: the number of transformer blocks (attention and feed-forward layer).
        heads: attention heads, a divisor of hidden.
        dropout: dropout rate of embeddings, attention weights and the feed-forward layers.
        eps: LayerNorm's epsilon.

    Raises:
        ValueError: a size is too small, heads do not divide hidden, the rate is outside [0, 1), or
            eps is not above 0.
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
        _require_eps(eps)
        require_rate("dropout", dropout)
        self.dropout = dropout
        self.blocks = nn.ModuleList(
            PreNormBlock(maxlen, hidden, heads, dropout, eps) for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(hidden, eps)
        for embedding in (self.item, self.position):
            nn.init.xavier_normal_(embedding.weight)

    def embed_inputs(
        self, ops: Operations, x: Tensor, packing: Packing, dropout_key: Tensor | None
    ) -> Tensor:
        x = math.sqrt(x.shape[-1]) * x + F.embedding(packing.positions, self.position.weight)
        return ops.dropout(x, self.dropout, dropout_key, packing.tokens)

    def final_norm(self, x: Tensor) -> Tensor:
        return self.norm(x)


class PreNormBlock(nn.Module):
    """x = LayerNorm(x + attention(query=LayerNorm(x), key=x, value=x)), then x = x + FFN(x).

    FFN(x) is dropout(W2 relu(dropout(W1 x + b1)) + b2).

    A pad's vector is zero, so its key is the bias of the key projection and its value the bias of
    the value projection. All pads of a batch are therefore copies of one key and value, and
    attention computes them once.
    """

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

    def forward(
        self, ops: Operations, x: Tensor, packing: Packing, dropout_keys: Tensor | None
    ) -> Tensor:
        """(R, L, D) -> (R, L, D). ``dropout_keys``: (4, 2) int64, or None: no dropout."""
        attention = Projections(self.qkv_weight, self.qkv_bias, self.out.weight, self.heads)
        q, k, v = attention.query(self.query_norm(x)), attention.key(x), attention.value(x)
        settings = (
            self.maxlen,
            self.heads,
            self.dropout,
            _attention_dropout_keys(dropout_keys),
            attention.pad_kv(),
        )
        attended = ops.attention(q, k, v, packing, *settings)
        return self._after_attention(
            ops, x, attention.output(attended), dropout_keys, packing.tokens
        )

    def at_slots(self, ops: Operations, x: Tensor, packing: Packing, slots: Tensor) -> Tensor:
        """(R, L, D) -> (Q, D): the outputs in the slots (Q,) only, without dropout."""
        queried = x.flatten(0, 1)[slots]
        attention = Projections(self.qkv_weight, self.qkv_bias, self.out.weight, self.heads)
        q, k, v = attention.query(self.query_norm(queried)), attention.key(x), attention.value(x)
        attended = ops.attention_at(q, k, v, slots, packing, self.heads, attention.pad_kv())
        return self._after_attention(ops, queried, attention.output(attended), None, slots)

    def _after_attention(
        self,
        ops: Operations,
        x: Tensor,
        attended: Tensor,
        dropout_keys: Tensor | None,
        tokens: Tensor,
    ) -> Tensor:
        dropout_key1, dropout_key2 = _other_dropout_keys(dropout_keys)
        x = self.ffn_norm(attended + self.out.bias + x)
        wide = F.relu(ops.dropout(self.first(x), self.dropout, dropout_key1, tokens))
        return x + ops.dropout(self.second(wide), self.dropout, dropout_key2, tokens)


class Projections:
    """The query, key, value and output maps of attention. With one head, two maps replace the four.

    Keys: a score is ``(Wq x + bq) . (Wk y + bk)`` for a query token x and a key token y. The term
    with ``bk`` is the same for every y, so it cancels in the softmax. The other terms equal
    ``(Wk^T (Wq x + bq)) . y``. The query map therefore becomes ``Wk^T Wq``, and y is the key.

    Values: attention is a weighted sum of values, and ``Wo`` is linear. ``Wo`` may therefore be
    applied to each value instead of the sum: the value map becomes ``Wo Wv``.

    With several heads, these products would be D x D maps per head, which cost more.

    Args:
        weight: (3 D, D), the weights of query, key and value, in this order.
        bias: (3 D,), the biases in the same order.
        out: (D, D), ``Wo``. The caller adds its bias.
        heads: H.
    """

    def __init__(self, weight: Tensor, bias: Tensor, out: Tensor, heads: int) -> None:
        (wq, wk, wv), (bq, bk, bv) = weight.chunk(3), bias.chunk(3)
        self.one_head = heads == 1
        if self.one_head:
            self.q = wk.T @ wq, bq @ wk
            self.v = out @ wv, out @ bv
            self.pad_key = torch.zeros_like(bk)
        else:
            self.q, self.k, self.v, self.out = (wq, bq), (wk, bk), (wv, bv), out
            self.pad_key = bk

    def query(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        return F.linear(x, *self.q)

    def key(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        return x if self.one_head else F.linear(x, *self.k)

    def value(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        return F.linear(x, *self.v)

    def output(self, attended: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        return attended if self.one_head else F.linear(attended, self.out)

    def pad_kv(self) -> Tensor:
        """(2, D): the key and the value of a pad, whose vector is zero."""
        return torch.stack([self.pad_key, self.v[1]])


def _attention_dropout_keys(dropout_keys: Tensor | None) -> Tensor | None:
    return None if dropout_keys is None else dropout_keys[:2]


def _other_dropout_keys(dropout_keys: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if dropout_keys is None else (dropout_keys[2], dropout_keys[3])


def _require_eps(eps: float) -> None:
    require(isinstance(eps, int | float) and eps > 0, "eps", eps, "a number > 0")
