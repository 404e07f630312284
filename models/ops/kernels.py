"""CPU loops compiled by numba, for float32 NumPy arrays and one thread.

They compute what models/ops/reference.py computes; tests compare the two. Arrays are C-contiguous.
The last arguments are outputs, which the loops overwrite (``count_not_lower`` adds to
``ranks`` and sets entries of ``scores`` to -inf).

Sizes: T tokens in the order of their numbers, D hidden size, F feed-forward size, H heads,
W = D / H, K negatives per target, M the model's maxlen, Q queried tokens. ``dx`` is the gradient of
the loss with respect to ``x``, of its shape.

``limit``, ``keep_scale``, the dropout key's words (``key0``, ``key1``) and ``first``, the number of
the first token, define a dropout: elements whose noise is at most ``limit`` are multiplied by
``keep_scale``, which is 1 / (1 - rate); others are set to 0.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import numba
import numpy as np
from numba import float32, int32, uint32
from numba.core.caching import FunctionCache


class _Cache(FunctionCache):
    """Caches machine code on disk. A full disk or a damaged file is not an error.

    simba/backends/numba_cpu.py has a copy, because ``models`` and ``simba`` do not import each
    other.
    """

    def load_overload(self, *arguments: Any) -> Any:
        try:
            return super().load_overload(*arguments)
        except Exception:  # unpickling a damaged file can raise any exception
            return None

    def save_overload(self, *arguments: Any) -> None:
        with suppress(Exception):
            super().save_overload(*arguments)


def _compile(function: Callable[..., Any], **options: Any) -> Any:
    """Compile a function at its first call.

    The machine code is cached on disk if numba finds a folder that it can write to: __pycache__,
    NUMBA_CACHE_DIR or the user's cache folder.
    """
    # With numpy's error model x / 0 is not an error. A check of every division would prevent
    # vectorization.
    compiled = numba.njit(nogil=True, error_model="numpy", **options)(function)
    with suppress(RuntimeError):  # no folder can be written
        compiled._cache = _Cache(function)
    return compiled


def _compile_fast(function: Callable[..., Any]) -> Any:
    """``_compile`` with reordered sums, fused multiply-add and reciprocals.

    NaN and infinity are respected (neither nnan nor ninf): a run must notice a loss that is not
    finite.
    """
    return _compile(function, fastmath={"reassoc", "contract", "nsz", "arcp"})


LOG2_E = float32(1.4426950408889634)
LN2_HIGH, LN2_LOW = float32(0.693359375), float32(-2.12194440e-4)


@_compile_fast
def noise(index, key0, key1):
    """``reference.noise`` of one index, uint32."""
    x = uint32(index ^ key0)  # numba widens integers, so each result is converted back to 32 bits
    x = uint32(uint32(x ^ (x >> uint32(16))) * uint32(0x7FEB352D))
    x = uint32(uint32(x ^ key1 ^ (x >> uint32(15))) * uint32(0x846CA68B))
    return uint32(x ^ (x >> uint32(16)))


@_compile_fast
def _exp(x):
    """exp(x) for x <= 0, within 2 ulp; exp(-87) = 1.6e-38 for x < -87.

    exp(x) = 2**n exp(r) with n = round(x / ln 2) and |r| <= ln 2 / 2. exp(r) is approximated by its
    Taylor polynomial of degree 6; 2**n is constructed from its bits.
    """
    x = float32(-87.0) if x < float32(-87.0) else x  # NaN stays NaN
    n = int32(x * LOG2_E - float32(0.5))  # truncation rounds x / ln 2 to nearest, because x <= 0
    r = x - float32(n) * LN2_HIGH - float32(n) * LN2_LOW
    y = float32(1 / 720)
    y = y * r + float32(1 / 120)
    y = y * r + float32(1 / 24)
    y = y * r + float32(1 / 6)
    y = y * r + float32(0.5)
    y = y * r + float32(1.0)
    y = y * r + float32(1.0)
    return y * np.int32((n + int32(127)) << int32(23)).view(np.float32)


@_compile_fast
def _half_erfc(x):
    """(erfc(x / sqrt 2) / 2, exp(-x**2 / 2)) for x >= 0, with an absolute error below 1e-7.

    The first is the upper tail of the standard normal distribution. Approximation 7.1.26 of
    Abramowitz and Stegun, Handbook of Mathematical Functions.
    """
    t = float32(1.0) / (float32(1.0) + float32(0.3275911 / math.sqrt(2.0)) * x)
    e = _exp(float32(-0.5) * x * x)
    y = float32(0.5 * 1.061405429)
    y = y * t + float32(0.5 * -1.453152027)
    y = y * t + float32(0.5 * 1.421413741)
    y = y * t + float32(0.5 * -0.284496736)
    y = y * t + float32(0.5 * 0.254829592)
    return y * t * e, e


@_compile_fast
def gelu(x, bias, y):
    """y = GELU(x + bias) = u * Phi(u) with u = x + bias; x, y (T, F), bias (F,)."""
    for t in range(x.shape[0]):
        xt, yt = x[t], y[t]
        for d in range(bias.size):
            u = xt[d] + bias[d]
            tail, _ = _half_erfc(abs(u))
            yt[d] = u * (tail if u < float32(0.0) else float32(1.0) - tail)


@_compile_fast
def gelu_backward(x, bias, dy, dx, dbias):
    """dx = dy * (Phi(u) + u * phi(u)), (T, F); dbias (F,) is the sum of dx over tokens."""
    dbias[:] = 0
    for t in range(x.shape[0]):
        xt, gt, dt = x[t], dy[t], dx[t]
        for d in range(bias.size):
            u = xt[d] + bias[d]
            tail, e = _half_erfc(abs(u))
            cdf = tail if u < float32(0.0) else float32(1.0) - tail
            dt[d] = gt[d] * (cdf + u * float32(1 / math.sqrt(2 * math.pi)) * e)
        _add(dbias, float32(1.0), dt)


@_compile_fast
def dropout(x, y, limit, keep_scale, key0, key1, first):
    """y = dropout(x), (T, D). Called with dy as x, it computes the gradient dx."""
    size, width = x.shape
    for t in range(size):
        xt, yt = x[t], y[t]
        index = uint32((first + t) * width)
        for d in range(width):
            keep = noise(uint32(index + d), key0, key1) <= limit
            yt[d] = xt[d] * keep_scale if keep else float32(0.0)


@_compile_fast
def dropout_add_norm(
    x, bias, residual, weight, norm_bias, eps, limit, keep_scale, key0, key1, first, y, normed, rstd
):
    """y = LayerNorm(residual + dropout(x + bias)), (T, D).

    Two outputs are for the gradient: ``normed`` (T, D), the normalized rows before ``weight`` and
    ``norm_bias`` (D,) are applied, and ``rstd`` (T,), 1 / the standard deviation of each row.
    """
    size, width = x.shape
    for t in range(size):
        xt, rt, yt, nt = x[t], residual[t], y[t], normed[t]
        index = uint32((first + t) * width)
        for d in range(width):
            keep = noise(uint32(index + d), key0, key1) <= limit
            nt[d] = rt[d] + ((xt[d] + bias[d]) * keep_scale if keep else float32(0.0))
        mean = _sum(nt) / float32(width)
        squares = float32(0.0)
        for d in range(width):
            z = nt[d] - mean
            squares += z * z
        r = float32(1.0) / math.sqrt(squares / float32(width) + eps)
        rstd[t] = r
        for d in range(width):
            z = (nt[d] - mean) * r
            nt[d] = z
            yt[d] = z * weight[d] + norm_bias[d]


@_compile_fast
def dropout_add_norm_backward(
    dy,
    normed,
    rstd,
    weight,
    limit,
    keep_scale,
    key0,
    key1,
    first,
    dx,
    dbias,
    dresidual,
    dweight,
    dnorm_bias,
):
    """The gradients of ``dropout_add_norm`` with respect to all inputs, from ``dy`` (T, D).

    dresidual = (g - mean(g) - normed * mean(g * normed)) * rstd with g = dy * weight.
    """
    size, width = dy.shape
    dweight[:] = 0
    dbias[:] = 0
    dnorm_bias[:] = 0
    for t in range(size):
        gt, nt, xt, rt = dy[t], normed[t], dx[t], dresidual[t]
        a = float32(0.0)
        b = float32(0.0)
        for d in range(width):
            g = gt[d] * weight[d]
            a += g
            b += g * nt[d]
        a /= float32(width)
        b /= float32(width)
        for d in range(width):
            dweight[d] += gt[d] * nt[d]
        _add(dnorm_bias, float32(1.0), gt)
        for d in range(width):
            rt[d] = (gt[d] * weight[d] - a - nt[d] * b) * rstd[t]
        index = uint32((first + t) * width)
        for d in range(width):
            keep = noise(uint32(index + d), key0, key1) <= limit
            xt[d] = rt[d] * keep_scale if keep else float32(0.0)
        _add(dbias, float32(1.0), xt)


@_compile_fast
def embed(weight, items, candidates, x, embedded):
    """x (T, D) = weight[items]; embedded (T, 1 + K, D) = weight[candidates]."""
    for t in range(items.size):
        _copy(weight[items[t]], x[t])
        for k in range(candidates.shape[1]):
            _copy(weight[candidates[t, k]], embedded[t, k])


@_compile_fast
def embed_backward(dx, dembedded, items, candidates, dweight):
    """dweight (num_items + 1, D): row i is the sum of the gradients of all embeddings of item i."""
    dweight[:] = 0
    for t in range(items.size):
        _add(dweight[items[t]], float32(1.0), dx[t])
        for k in range(candidates.shape[1]):
            _add(dweight[candidates[t, k]], float32(1.0), dembedded[t, k])


@_compile_fast
def bce(hidden, embedded, mask, dscores):
    """``reference.bce``, summed in float64. ``dscores`` (T, 1 + K) is the gradient of the loss.

    hidden (T, D), embedded (T, 1 + K, D) with the target first, mask (T,) bool.
    """
    size, scored = dscores.shape
    positive = 0.0
    negative = 0.0
    count = 0
    for t in range(size):
        count += mask[t]
    for t in range(size):
        dscores[t] = 0
        if mask[t]:
            for k in range(scored):
                sign = float32(-1.0) if k == 0 else float32(1.0)
                score = sign * _dot(hidden[t], embedded[t, k])
                small = math.exp(-abs(score))
                loss = max(score, float32(0.0)) + math.log1p(small)
                derivative = (1.0 if score >= 0 else small) / (1.0 + small)
                if k == 0:
                    positive += loss
                    dscores[t, k] = -derivative / count
                else:
                    negative += loss
                    dscores[t, k] = derivative / (count * (scored - 1))
    return (positive + negative / (scored - 1)) / count


@_compile_fast
def bce_backward(dloss, hidden, embedded, dscores, dhidden, dembedded):
    """The gradients of hidden (T, D) and embedded (T, 1 + K, D) from ``dloss``, a scalar."""
    size, scored = dscores.shape
    for t in range(size):
        dhidden[t] = 0
        for k in range(scored):
            dscore = dloss * dscores[t, k]
            _add(dhidden[t], dscore, embedded[t, k])
            for d in range(hidden.shape[1]):
                dembedded[t, k, d] = dscore * hidden[t, d]


@_compile_fast
def _copy(a, out):
    for i in range(a.size):
        out[i] = a[i]


@_compile_fast
def _sum(a):
    total = float32(0.0)
    for i in range(a.size):
        total += a[i]
    return total


@_compile_fast
def _dot(a, b):
    total = float32(0.0)
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@_compile_fast
def _add(out, weight, a):
    """out += weight * a"""
    for i in range(a.size):
        out[i] += weight * a[i]


@_compile_fast
def _count_kept_pads(index, pads, limit, key0, key1):
    """The number of pads that dropout keeps; pad j has the index ``index`` + j."""
    count = 0
    for j in range(pads):
        count += noise(uint32(index + j), key0, key1) <= limit
    return count


@_compile_fast
def _dropout_factors(index, limit, keep_scale, key0, key1, factors):
    """factors[j] = keep_scale or 0, the factor of dropout for the attention weight of key j.

    ``index`` is the dropout index of the last key's weight. A weight's index is ``index`` plus the
    distance of key and query, so it does not depend on the sequence's slots.
    """
    for j in range(factors.size):
        weight_index = uint32(index + factors.size - 1 - j)
        factors[j] = keep_scale if noise(weight_index, key0, key1) <= limit else float32(0.0)


@cache
def attention(width):
    """(forward, backward) of ``reference.attention`` for heads of W = ``width`` columns.

    The width is a constant of the compiled code, so the compiler vectorizes the innermost loops.

    - q: (Q, H, W), the queries of the tokens in ``slots`` (Q,).
    - k, v: (T, H, W), the keys and values of all tokens.
    - starts: (T,), the slot of the first token of each token's sequence.
    - pads: (T,), the number of pads that each token attends to; empty: no token does.
    - pad_kv: (2, H, W), the key and value of a pad.
    - maxlen: M, the longest sequence.
    - dropout_keys: (2, 2) uint32, the keys for the weights of tokens and of pads.
    - out: (Q, H, W).
    - weights: (Q, H, M + 1), an output for the gradient: the softmax weights before dropout. Entry
      j is the weight of the sequence's token j, entry M that of the pads. If the array is
      (1, H, M + 1), each query overwrites the weights of the previous query.

    ``backward`` needs Q = T. It writes the gradients of q, k, v and pad_kv.
    """

    def forward(
        q,
        k,
        v,
        slots,
        starts,
        pads,
        pad_kv,
        maxlen,
        limit,
        keep_scale,
        dropout_keys,
        first,
        out,
        weights,
    ):
        heads = q.shape[1]
        inv_sqrt_width = float32(1.0) / math.sqrt(float32(width))
        all_factors = np.empty(maxlen, dtype=np.float32)
        for i in range(slots.size):
            t = slots[i]
            begin = starts[t]
            length = t - begin + 1
            num_pads = pads[t] if pads.size else 0
            for h in range(heads):
                qi, oi, w = q[i, h], out[i, h], weights[i % weights.shape[0], h]
                largest = float32(-np.inf)
                for j in range(length):
                    kj, score = k[begin + j, h], float32(0.0)
                    for d in range(width):
                        score += qi[d] * kj[d]
                    w[j] = score * inv_sqrt_width
                    largest = max(largest, w[j])
                total = float32(0.0)
                if num_pads:
                    w[maxlen] = _dot(qi, pad_kv[0, h]) * inv_sqrt_width
                    largest = max(largest, w[maxlen])
                    w[maxlen] = float32(num_pads) * _exp(w[maxlen] - largest)
                    total = w[maxlen]
                for j in range(length):
                    w[j] = _exp(w[j] - largest)
                    total += w[j]
                index, factors = ((first + t) * heads + h) * maxlen, all_factors[:length]
                _dropout_factors(
                    index, limit, keep_scale, dropout_keys[0, 0], dropout_keys[0, 1], factors
                )
                for d in range(width):
                    oi[d] = float32(0.0)
                for j in range(length):
                    w[j] /= total
                    vj, weight = v[begin + j, h], w[j] * factors[j]
                    for d in range(width):
                        oi[d] += weight * vj[d]
                if num_pads:
                    w[maxlen] /= total
                    kept_pads = _count_kept_pads(
                        index, num_pads, limit, dropout_keys[1, 0], dropout_keys[1, 1]
                    )
                    pad_weight = w[maxlen] * keep_scale * float32(kept_pads) / float32(num_pads)
                    _add(oi, pad_weight, pad_kv[1, h])

    def backward(
        dout,
        q,
        k,
        v,
        starts,
        pads,
        pad_kv,
        maxlen,
        limit,
        keep_scale,
        dropout_keys,
        first,
        weights,
        dq,
        dk,
        dv,
        dpad,
    ):
        size, heads = q.shape[:2]
        inv_sqrt_width = float32(1.0) / math.sqrt(float32(width))
        all_factors = np.empty(maxlen, dtype=np.float32)
        g = np.empty(maxlen, dtype=np.float32)
        dq[:] = 0
        dk[:] = 0
        dv[:] = 0
        dpad[:] = 0
        for t in range(size):
            begin = starts[t]
            length = t - begin + 1
            num_pads = pads[t] if pads.size else 0
            for h in range(heads):
                w, do, qt, dqt = weights[t, h], dout[t, h], q[t, h], dq[t, h]
                index, factors = ((first + t) * heads + h) * maxlen, all_factors[:length]
                _dropout_factors(
                    index, limit, keep_scale, dropout_keys[0, 0], dropout_keys[0, 1], factors
                )
                total = float32(0.0)
                for j in range(length):
                    vj, dweight = v[begin + j, h], float32(0.0)
                    for d in range(width):
                        dweight += do[d] * vj[d]
                    g[j] = dweight * factors[j]
                    total += w[j] * g[j]
                dpad_weight = float32(0.0)
                if num_pads:
                    kept_pads = _count_kept_pads(
                        index, num_pads, limit, dropout_keys[1, 0], dropout_keys[1, 1]
                    )
                    pad_factor = keep_scale * float32(kept_pads) / float32(num_pads)
                    _add(dpad[1, h], w[maxlen] * pad_factor, do)
                    dpad_weight = _dot(do, pad_kv[1, h]) * pad_factor
                    total += w[maxlen] * dpad_weight
                for j in range(length):
                    ds, weight = w[j] * (g[j] - total) * inv_sqrt_width, w[j] * factors[j]
                    kj, dkj, dvj = k[begin + j, h], dk[begin + j, h], dv[begin + j, h]
                    for d in range(width):
                        dvj[d] += weight * do[d]
                    for d in range(width):
                        dkj[d] += ds * qt[d]
                    for d in range(width):
                        dqt[d] += ds * kj[d]
                if num_pads:
                    ds = w[maxlen] * (dpad_weight - total) * inv_sqrt_width
                    _add(dqt, ds, pad_kv[0, h])
                    _add(dpad[0, h], ds, qt)

    return _compile_fast(forward), _compile_fast(backward)


@_compile
def count_not_lower(scores, first, target_scores, targets, excluded_offsets, excluded_items, ranks):
    """``models.ranking.count_not_lower_reference``, compiled.

    It is compiled without fastmath, because comparisons with NaN must follow IEEE 754.
    """
    users, items = scores.shape
    excluded = float32(-np.inf)
    for u in range(users):
        row, score = scores[u], target_scores[u]
        for i in range(excluded_offsets[u], excluded_offsets[u + 1]):
            column = excluded_items[i] - first
            if 0 <= column < items:
                row[column] = excluded
        column = targets[u] - first
        if 0 <= column < items:
            row[column] = excluded
        ahead = int32(0)
        for i in range(items):
            ahead += int32((row[i] != excluded) & (not (row[i] < score)))
        ranks[u] += ahead
