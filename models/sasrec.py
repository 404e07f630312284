"""SASRec on packed sequences, in two published forms.

Sequences of a batch lie end to end in rows of one length, so that every layer runs on real tokens
instead of padding. Shapes: R rows, L slots a row, D hidden size, H heads, K negatives. A batch is
three integer tensors of shape (R, L):

- ``items``: 1..num_items, 0 in an empty slot;
- ``positions``: the slot that the token would have in a sequence left-padded to ``maxlen``;
- ``starts``: the column in which the token's sequence begins; an empty slot is its own start.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PackedTransformer(nn.Module):
    """Embeddings, loss and scores; a form adds its blocks as ``encode``.

    Raises:
        ValueError: a size is below 1, a rate outside [0, 1) or heads do not divide hidden.
    """

    def __init__(self, num_items: int, maxlen: int, hidden: int, heads: int) -> None:
        super().__init__()
        for name, value in {"maxlen": maxlen, "hidden": hidden, "heads": heads}.items():
            _require(isinstance(value, int) and value >= 1, name, value, "an integer >= 1")
        _require(hidden % heads == 0, "heads", heads, f"a divisor of hidden={hidden}")
        self.maxlen = maxlen
        self.item = nn.Embedding(num_items + 1, hidden)  # row 0: empty slots
        self.position = nn.Embedding(maxlen, hidden)

    def encode(self, x: Tensor, positions: Tensor, starts: Tensor) -> Tensor:
        """Hidden states (R, L, D) from item embeddings ``x`` (R, L, D)."""
        raise NotImplementedError

    def forward(self, items: Tensor, positions: Tensor, starts: Tensor) -> Tensor:
        """Hidden states (R, L, D); a token sees its own sequence up to itself."""
        return self.encode(self.item(items), positions, starts)

    def loss(
        self, items: Tensor, positions: Tensor, starts: Tensor, targets: Tensor, negatives: Tensor
    ) -> Tensor:
        """BCE, mean over real targets: ``mean softplus(-pos) + mean softplus(neg)``.

        ``targets`` is (R, L), 0 in empty slots; ``negatives`` (R, L, K). 2 ln 2 for zero scores.
        """
        wanted = torch.cat([items.unsqueeze(-1), targets.unsqueeze(-1), negatives], dim=-1)
        embedded = self.item(wanted)  # (R, L, 2 + K, D): one gather, one gradient
        h = self.encode(embedded[:, :, 0], positions, starts)
        scores = (embedded[:, :, 1:] * h.unsqueeze(2)).sum(-1)  # (R, L, 1 + K)
        real = targets > 0
        positive = F.softplus(-scores[:, :, 0])[real].mean()
        return positive + F.softplus(scores[:, :, 1:])[real].mean()

    def item_weight(self) -> Tensor:
        """(num_items, D): row i - 1 is item i. A score is its dot product with a hidden state."""
        return self.item.weight[1:]


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
        super().__init__(num_items, maxlen, hidden, heads)
        _require_blocks(blocks, ffn, eps)
        _require_rate("hidden_dropout", hidden_dropout)
        _require_rate("attention_dropout", attention_dropout)
        self.norm = nn.LayerNorm(hidden, eps)
        self.dropout = nn.Dropout(hidden_dropout)
        self.blocks = nn.ModuleList(
            PostNormBlock(hidden, heads, ffn, hidden_dropout, attention_dropout, eps)
            for _ in range(blocks)
        )
        for module in self.modules():
            if isinstance(module, nn.Embedding | nn.Linear):
                nn.init.xavier_normal_(module.weight)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def encode(self, x: Tensor, positions: Tensor, starts: Tensor) -> Tensor:
        x = self.dropout(self.norm(x + self.position(positions)))
        bias = attention_bias(starts, x.dtype)
        for block in self.blocks:
            x = block(x, bias)
        return x


class PostNormBlock(nn.Module):
    def __init__(
        self,
        hidden: int,
        heads: int,
        ffn: int,
        dropout: float,
        attention_dropout: float,
        eps: float,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, eps)
        self.widen = nn.Linear(hidden, ffn)
        self.narrow = nn.Linear(ffn, hidden)
        self.ffn_norm = nn.LayerNorm(hidden, eps)
        self.dropout = nn.Dropout(dropout)
        self.attention_dropout = nn.Dropout(attention_dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (split_heads(f(x), self.heads) for f in (self.query, self.key, self.value))
        weights = torch.softmax(attention_scores(q, k) + bias, dim=-1)  # (R, H, L, L)
        attended = join_heads(self.attention_dropout(weights) @ v)
        x = self.attention_norm(x + self.dropout(self.out(attended)))
        return self.ffn_norm(x + self.dropout(self.narrow(F.gelu(self.widen(x)))))


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
        super().__init__(num_items, maxlen, hidden, heads)
        _require_blocks(blocks, hidden, eps)
        _require_rate("dropout", dropout)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            PreNormBlock(hidden, heads, dropout, eps) for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(hidden, eps)
        for embedding in (self.item, self.position):
            nn.init.xavier_normal_(embedding.weight)

    def encode(self, x: Tensor, positions: Tensor, starts: Tensor) -> Tensor:
        x = self.dropout(math.sqrt(x.shape[-1]) * x + self.position(positions))
        bias = attention_bias(starts, x.dtype)
        columns = torch.arange(x.shape[1], device=x.device)
        pads = positions - (columns - starts)  # (R, L): slots to the left of the sequence
        for block in self.blocks:
            x = block(x, bias, pads)
        return self.norm(x)


class PreNormBlock(nn.Module):
    def __init__(self, hidden: int, heads: int, dropout: float, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.query_norm = nn.LayerNorm(hidden, eps)
        self.qkv_weight = nn.Parameter(torch.empty(3 * hidden, hidden))
        self.qkv_bias = nn.Parameter(torch.zeros(3 * hidden))
        self.out = nn.Linear(hidden, hidden)
        self.ffn_norm = nn.LayerNorm(hidden, eps)
        self.first = nn.Linear(hidden, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.qkv_weight)
        nn.init.xavier_normal_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, bias: Tensor, pads: Tensor) -> Tensor:
        attended = self._attend(self.query_norm(x), x, bias, pads)
        x = self.ffn_norm(self.out(attended) + x)
        return x + self.dropout(self.second(F.relu(self.dropout(self.first(x)))))

    def _attend(self, query: Tensor, x: Tensor, bias: Tensor, pads: Tensor) -> Tensor:
        """A pad is a zero row: its key and value are biases. All of a sequence's pads share one
        null key, which enters the softmax with weight ``pads``, i.e. with log(pads) added."""
        hidden = x.shape[-1]
        q_weight, kv_weight = self.qkv_weight.split([hidden, 2 * hidden])
        q_bias, kv_bias = self.qkv_bias.split([hidden, 2 * hidden])
        q = split_heads(F.linear(query, q_weight, q_bias), self.heads)
        k, v = F.linear(x, kv_weight, kv_bias).chunk(2, dim=-1)
        k, v = split_heads(k, self.heads), split_heads(v, self.heads)
        null_k, null_v = (split_heads(b.view(1, 1, -1), self.heads) for b in kv_bias.chunk(2))

        counts = pads.unsqueeze(1).unsqueeze(-1).to(x.dtype)  # (R, 1, L, 1)
        null_scores = attention_scores(q, null_k) + counts.log()  # (R, H, L, 1)
        scores = torch.cat([attention_scores(q, k) + bias, null_scores], dim=-1)
        weights = torch.softmax(scores, dim=-1)
        real, null = weights[..., :-1], weights[..., -1:]
        return join_heads(self.dropout(real) @ v + self._drop_pads(null, counts) * null_v)

    def _drop_pads(self, null: Tensor, counts: Tensor) -> Tensor:
        """Dropout of each pad by itself: a binomial share of their common weight survives."""
        rate = self.dropout.p
        if not self.training or rate == 0:
            return null
        counts = counts.expand_as(null)
        kept = torch.binomial(counts, torch.full_like(counts, 1 - rate))
        return null * kept / (counts.clamp(min=1) * (1 - rate))


def attention_bias(starts: Tensor, dtype: torch.dtype) -> Tensor:
    """(R, 1, L, L): 0 where a token may look, -inf elsewhere (later, or another sequence)."""
    columns = torch.arange(starts.shape[1], device=starts.device)
    visible = (columns <= columns.unsqueeze(1)) & (columns >= starts.unsqueeze(-1))
    bias = torch.zeros(visible.shape, dtype=dtype, device=starts.device)
    return bias.masked_fill_(~visible, -math.inf).unsqueeze(1)


def attention_scores(q: Tensor, k: Tensor) -> Tensor:
    return (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(R, L, D) -> (R, H, L, D / H)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(R, H, L, D / H) -> (R, L, D)."""
    return x.transpose(1, 2).flatten(2)


def _require(valid: bool, name: str, value: object, expected: str) -> None:
    if not valid:
        raise ValueError(f"model.{name} must be {expected}, got {value!r}")


def _require_rate(name: str, value: float) -> None:
    _require(isinstance(value, int | float) and 0 <= value < 1, name, value, "a number in [0, 1)")


def _require_blocks(blocks: int, ffn: int, eps: float) -> None:
    _require(isinstance(blocks, int) and blocks >= 1, "blocks", blocks, "an integer >= 1")
    _require(isinstance(ffn, int) and ffn >= 1, "ffn", ffn, "an integer >= 1")
    _require(isinstance(eps, int | float) and eps > 0, "eps", eps, "a number > 0")
