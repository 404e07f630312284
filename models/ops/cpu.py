"""``models.ops.Operations`` as autograd functions that call compiled loops.

They support float32 tensors on a CPU and flat batches: one row of tokens with consecutive numbers,
without empty slots. They therefore read only the first element of ``tokens``. The docstrings of
``Operations`` apply.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function

from models.ops import kernels
from models.ops.reference import noise_limit
from models.packing import Packing

NO_PADS = np.zeros(0, dtype=np.int64)


def dropout(x: Tensor, rate: float, key: Tensor | None, tokens: Tensor) -> Tensor:
    return x if key is None or rate == 0 else _Dropout.apply(x, rate, key, tokens)


def dropout_add_norm(
    x: Tensor,
    bias: Tensor,
    residual: Tensor,
    norm: nn.LayerNorm,
    rate: float,
    key: Tensor | None,
    tokens: Tensor,
) -> Tensor:
    inputs = x, bias, residual, norm.weight, norm.bias
    return _DropoutAddNorm.apply(*inputs, norm.eps, rate, key, tokens)


def gelu(x: Tensor, bias: Tensor) -> Tensor:
    return _Gelu.apply(x, bias)


def embed(weight: Tensor, items: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    return _Embed.apply(weight, items, candidates)


def bce(hidden: Tensor, embedded: Tensor, mask: Tensor) -> Tensor:
    return _Bce.apply(hidden, embedded, mask)


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
    return _Attention.apply(q, k, v, pad_kv, packing, maxlen, heads, rate, dropout_keys)


def attention_at(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slots: Tensor,
    packing: Packing,
    heads: int,
    pad_kv: Tensor | None = None,
) -> Tensor:
    """See ``Operations.attention_at``. It has no gradient, because only evaluation calls it."""
    out = torch.empty_like(q)
    longest = int((slots - packing.starts.flatten()[slots]).max()) + 1
    weights = np.empty((1, heads, longest + 1), dtype=np.float32)
    qkv = (_heads(x, heads) for x in (q, k, v))
    visible = _visible_keys(packing, pad_kv, heads, q.shape[-1])
    forward, _ = kernels.attention(q.shape[-1] // heads)
    no_dropout = _attention_dropout_arguments(0.0, None, slots)
    forward(*qkv, _flat(slots), *visible, longest, *no_dropout, _heads(out, heads), weights)
    return out


class _Dropout(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float, key: Tensor, tokens: Tensor) -> Tensor:
        ctx.dropout = _dropout_arguments(rate, key, tokens)
        y = torch.empty_like(x)
        kernels.dropout(_rows(x), _rows(y), *ctx.dropout)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None, None]:
        dy = dy.contiguous()
        dx = torch.empty_like(dy)
        kernels.dropout(_rows(dy), _rows(dx), *ctx.dropout)
        return dx, None, None, None


class _DropoutAddNorm(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        bias: Tensor,
        residual: Tensor,
        weight: Tensor,
        norm_bias: Tensor,
        eps: float,
        rate: float,
        key: Tensor | None,
        tokens: Tensor,
    ) -> Tensor:
        ctx.dropout = _dropout_arguments(rate, key, tokens)
        y, normed = torch.empty_like(x), torch.empty_like(x)
        rstd = x.new_empty(x.shape[:-1])
        inputs = _rows(x), _array(bias), _rows(residual), _array(weight), _array(norm_bias)
        outputs = _rows(y), _rows(normed), _flat(rstd)
        kernels.dropout_add_norm(*inputs, np.float32(eps), *ctx.dropout, *outputs)
        ctx.save_for_backward(normed, rstd, weight)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        normed, rstd, weight = ctx.saved_tensors
        dx, dresidual = torch.empty_like(normed), torch.empty_like(normed)
        dbias, dweight, dnorm_bias = (torch.empty_like(weight) for _ in range(3))
        kernels.dropout_add_norm_backward(
            *(_rows(dy), _rows(normed), _flat(rstd), _array(weight)),
            *ctx.dropout,
            *(_rows(dx), _array(dbias), _rows(dresidual), _array(dweight), _array(dnorm_bias)),
        )
        return dx, dbias, dresidual, dweight, dnorm_bias, *[None] * 4


class _Gelu(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        y = torch.empty_like(x)
        kernels.gelu(_rows(x), _array(bias), _rows(y))
        ctx.save_for_backward(x, bias)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        x, bias = ctx.saved_tensors
        dx, dbias = torch.empty_like(x), torch.empty_like(bias)
        kernels.gelu_backward(_rows(x), _array(bias), _rows(dy), _rows(dx), _array(dbias))
        return dx, dbias


class _Embed(Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, items: Tensor, candidates: Tensor
    ) -> tuple[Tensor, Tensor]:
        x = weight.new_empty(*items.shape, weight.shape[1])
        embedded = weight.new_empty(*candidates.shape, weight.shape[1])
        ctx.indices = _flat(items), _rows(candidates)
        ctx.shape = weight.shape
        kernels.embed(_array(weight), *ctx.indices, _rows(x), _rows3(embedded))
        return x, embedded

    @staticmethod
    def backward(ctx: Any, dx: Tensor, dembedded: Tensor) -> tuple[Tensor, None, None]:
        dweight = dx.new_empty(ctx.shape)
        kernels.embed_backward(_rows(dx), _rows3(dembedded), *ctx.indices, _array(dweight))
        return dweight, None, None


class _Bce(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, embedded: Tensor, mask: Tensor) -> Tensor:
        dscores = hidden.new_empty(embedded.shape[:-1])
        loss = kernels.bce(_rows(hidden), _rows3(embedded), _flat(mask), _rows(dscores))
        ctx.save_for_backward(hidden, embedded, dscores)
        return hidden.new_tensor(loss)

    @staticmethod
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden, embedded, dscores = ctx.saved_tensors
        dhidden, dembedded = torch.empty_like(hidden), torch.empty_like(embedded)
        kernels.bce_backward(
            *(np.float32(dloss.item()), _rows(hidden), _rows3(embedded), _rows(dscores)),
            *(_rows(dhidden), _rows3(dembedded)),
        )
        return dhidden, dembedded, None


class _Attention(Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pad_kv: Tensor | None,
        packing: Packing,
        maxlen: int,
        heads: int,
        rate: float,
        dropout_keys: Tensor | None,
    ) -> Tensor:
        out, size = torch.empty_like(q), q.shape[1]
        ctx.weights = np.empty((size, heads, maxlen + 1), dtype=np.float32)
        visible = _visible_keys(packing, pad_kv, heads, q.shape[-1])
        ctx.settings = (
            *visible,
            maxlen,
            *_attention_dropout_arguments(rate, dropout_keys, packing.tokens),
        )
        qkv = (_heads(x, heads) for x in (q, k, v))
        forward, ctx.backward_kernel = kernels.attention(q.shape[-1] // heads)
        forward(*qkv, np.arange(size), *ctx.settings, _heads(out, heads), ctx.weights)
        ctx.save_for_backward(q, k, v)
        ctx.heads, ctx.has_pads = heads, pad_kv is not None
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        inputs = (dout, *ctx.saved_tensors)
        gradients = [torch.empty_like(x) for x in ctx.saved_tensors]
        dpad = dout.new_empty(2, dout.shape[-1])
        ctx.backward_kernel(
            *(_heads(x, ctx.heads) for x in inputs),
            *ctx.settings,
            ctx.weights,
            *(_heads(x, ctx.heads) for x in (*gradients, dpad)),
        )
        return *gradients, dpad if ctx.has_pads else None, *[None] * 5


def _visible_keys(
    packing: Packing, pad_kv: Tensor | None, heads: int, hidden: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The kernels' arguments ``starts``, ``pads`` and ``pad_kv``."""
    starts = _flat(packing.starts)
    if pad_kv is None:
        return starts, NO_PADS, np.zeros((2, heads, hidden // heads), dtype=np.float32)
    return starts, _flat(packing.num_pads()), _heads(pad_kv, heads)


def _dropout_arguments(rate: float, key: Tensor | None, tokens: Tensor) -> tuple[Any, ...]:
    """The kernels' arguments ``limit``, ``keep_scale``, ``key0``, ``key1`` and ``first``."""
    words = [0, 0] if key is None else key.tolist()
    return *_limit_and_scale(rate, key), *map(np.uint32, words), _first_token(tokens)


def _attention_dropout_arguments(
    rate: float, dropout_keys: Tensor | None, tokens: Tensor
) -> tuple[Any, ...]:
    """The kernels' arguments ``limit``, ``keep_scale``, ``dropout_keys`` (2, 2) and ``first``."""
    words = np.zeros((2, 2)) if dropout_keys is None else dropout_keys.numpy()
    return *_limit_and_scale(rate, dropout_keys), words.astype(np.uint32), _first_token(tokens)


def _first_token(tokens: Tensor) -> int:
    return int(tokens.reshape(-1)[0])


def _limit_and_scale(rate: float, key: Tensor | None) -> tuple[np.uint32, np.float32]:
    rate = 0.0 if key is None else rate
    return np.uint32(noise_limit(rate)), np.float32(1 / (1 - rate))


def _array(x: Tensor) -> np.ndarray:
    """A NumPy view of the tensor's memory if it is contiguous, else a copy."""
    return x.detach().contiguous().numpy()


def _flat(x: Tensor) -> np.ndarray:
    """(...) -> (elements,)"""
    return _array(x).reshape(-1)


def _rows(x: Tensor) -> np.ndarray:
    """(..., D) -> (T, D)"""
    return _array(x).reshape(-1, x.shape[-1])


def _rows3(x: Tensor) -> np.ndarray:
    """(..., K, D) -> (T, K, D)"""
    return _array(x).reshape(-1, *x.shape[-2:])


def _heads(x: Tensor, heads: int) -> np.ndarray:
    """(..., D) -> (T, H, D / H)"""
    return _array(x).reshape(-1, heads, x.shape[-1] // heads)
