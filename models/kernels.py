"""Loops that run at the speed of a core: compiled by numba, float32, one thread, no torch.

What each one computes is written down in plain torch in models/plain.py; tests hold the two equal.
Shapes: T tokens end to end, D hidden size, H heads, K negatives, M the longest sequence.
"""

import math
from functools import cache

import numba
import numpy as np
from numba import float32, int32, uint32

# NaN and infinity stay what they are: a run must notice a loss that is no number.
_compiled = numba.njit(
    cache=True,
    nogil=True,
    error_model="numpy",  # a check before every division would keep loops scalar
    fastmath={"reassoc", "contract", "nsz", "arcp"},
)

LOG2_E = float32(1.4426950408889634)
LN2_HIGH, LN2_LOW = float32(0.693359375), float32(-2.12194440e-4)


@_compiled
def noise(index, key0, key1):
    """32 random bits for every (index, key): models.plain.noise in unsigned arithmetic."""
    x = uint32(index ^ key0)  # numba widens integers: back to 32 bits after every operation
    x = uint32(uint32(x ^ (x >> uint32(16))) * uint32(0x7FEB352D))
    x = uint32(uint32(x ^ key1 ^ (x >> uint32(15))) * uint32(0x846CA68B))
    return uint32(x ^ (x >> uint32(16)))


@_compiled
def _exp(x):
    """exp for x <= 0, 2 ulp: 2**n times a polynomial on [-ln 2 / 2, ln 2 / 2]."""
    x = float32(-87.0) if x < float32(-87.0) else x  # NaN stays NaN
    n = int32(x * LOG2_E - float32(0.5))  # truncation rounds a negative number to the nearest
    r = x - float32(n) * LN2_HIGH - float32(n) * LN2_LOW
    y = float32(1 / 720)
    y = y * r + float32(1 / 120)
    y = y * r + float32(1 / 24)
    y = y * r + float32(1 / 6)
    y = y * r + float32(0.5)
    y = y * r + float32(1.0)
    y = y * r + float32(1.0)
    return y * np.int32((n + int32(127)) << int32(23)).view(np.float32)


@_compiled
def _half_erfc(x):
    """(erfc(x / sqrt 2) / 2, exp(-x**2 / 2)) for x >= 0, absolute error below 1e-7.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
    """
    t = float32(1.0) / (float32(1.0) + float32(0.3275911 / math.sqrt(2.0)) * x)
    e = _exp(float32(-0.5) * x * x)
    y = float32(0.5 * 1.061405429)
    y = y * t + float32(0.5 * -1.453152027)
    y = y * t + float32(0.5 * 1.421413741)
    y = y * t + float32(0.5 * -0.284496736)
    y = y * t + float32(0.5 * 0.254829592)
    return y * t * e, e


@_compiled
def gelu(x, bias, y):
    """y = GELU(x + bias), (T, F)."""
    for t in range(x.shape[0]):
        xt, yt = x[t], y[t]
        for d in range(bias.size):
            u = xt[d] + bias[d]
            tail, _ = _half_erfc(abs(u))
            yt[d] = u * (tail if u < float32(0.0) else float32(1.0) - tail)


@_compiled
def gelu_backward(x, bias, dy, dx, dbias):
    dbias[:] = 0
    for t in range(x.shape[0]):
        xt, gt, dt = x[t], dy[t], dx[t]
        for d in range(bias.size):
            u = xt[d] + bias[d]
            tail, e = _half_erfc(abs(u))
            cdf = tail if u < float32(0.0) else float32(1.0) - tail
            dt[d] = gt[d] * (cdf + u * float32(1 / math.sqrt(2 * math.pi)) * e)
        _add(dbias, float32(1.0), dt)


@_compiled
def dropout(x, y, bound, scale, key0, key1):
    """y = x * scale where noise <= bound, else 0; the gradient is the same function of dy."""
    for i in range(x.size):
        y[i] = x[i] * scale if noise(uint32(i), key0, key1) <= bound else float32(0.0)


@_compiled
def dropout_add_norm(
    x, bias, residual, weight, norm_bias, eps, bound, scale, key0, key1, y, normed, rstd
):
    """y = LayerNorm(residual + dropout(x + bias)), (T, D); keeps normalised rows and 1/std (T,)."""
    size, width = x.shape
    for t in range(size):
        xt, rt, yt, nt = x[t], residual[t], y[t], normed[t]
        first = uint32(t * width)
        for d in range(width):
            keep = noise(uint32(first + d), key0, key1) <= bound
            nt[d] = rt[d] + ((xt[d] + bias[d]) * scale if keep else float32(0.0))
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


@_compiled
def dropout_add_norm_backward(
    dy, normed, rstd, weight, bound, scale, key0, key1, dx, dbias, dresidual, dweight, dnorm_bias
):
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
        first = uint32(t * width)
        for d in range(width):
            keep = noise(uint32(first + d), key0, key1) <= bound
            xt[d] = rt[d] * scale if keep else float32(0.0)
        _add(dbias, float32(1.0), xt)


@_compiled
def embed(weight, items, wanted, x, embedded):
    """x (T, D) = weight[items]; embedded (T, 1 + K, D) = weight[wanted]."""
    for t in range(items.size):
        _copy(weight[items[t]], x[t])
        for k in range(wanted.shape[1]):
            _copy(weight[wanted[t, k]], embedded[t, k])


@_compiled
def embed_backward(dx, dembedded, items, wanted, dweight):
    dweight[:] = 0
    for t in range(items.size):
        _add(dweight[items[t]], float32(1.0), dx[t])
        for k in range(wanted.shape[1]):
            _add(dweight[wanted[t, k]], float32(1.0), dembedded[t, k])


@_compiled
def bce(hidden, embedded, real, slopes):
    """Mean loss over real targets; ``slopes`` (T, 1 + K) is its gradient by the scores."""
    size, scored = slopes.shape
    positive = 0.0
    negative = 0.0
    count = 0
    for t in range(size):
        count += real[t]
    for t in range(size):
        slopes[t] = 0
        if real[t]:
            for k in range(scored):
                sign = float32(-1.0) if k == 0 else float32(1.0)
                score = sign * _dot(hidden[t], embedded[t, k])
                small = math.exp(-abs(score))
                loss = max(score, float32(0.0)) + math.log1p(small)
                slope = (1.0 if score >= 0 else small) / (1.0 + small)
                if k == 0:
                    positive += loss
                    slopes[t, k] = -slope / count
                else:
                    negative += loss
                    slopes[t, k] = slope / (count * (scored - 1))
    return (positive + negative / (scored - 1)) / count


@_compiled
def bce_backward(dloss, hidden, embedded, slopes, dhidden, dembedded):
    size, scored = slopes.shape
    for t in range(size):
        dhidden[t] = 0
        for k in range(scored):
            slope = dloss * slopes[t, k]
            _add(dhidden[t], slope, embedded[t, k])
            for d in range(hidden.shape[1]):
                dembedded[t, k, d] = slope * hidden[t, d]


@_compiled
def _copy(a, out):
    for i in range(a.size):
        out[i] = a[i]


@_compiled
def _sum(a):
    total = float32(0.0)
    for i in range(a.size):
        total += a[i]
    return total


@_compiled
def _dot(a, b):
    total = float32(0.0)
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@_compiled
def _add(out, weight, a):
    """out += weight * a"""
    for i in range(a.size):
        out[i] += weight * a[i]


@_compiled
def _kept_pads(index, pads, bound, key0, key1):
    """How many of a token's pads survive a dropout of each by itself."""
    count = 0
    for j in range(pads):
        count += noise(uint32(index + j), key0, key1) <= bound
    return count


@_compiled
def _kept(index, bound, scale, key0, key1, kept):
    """kept[j] = scale or 0, by the noise of index + length - 1, ..., index + 1, index."""
    for j in range(kept.size):
        place = uint32(index + kept.size - 1 - j)
        kept[j] = scale if noise(place, key0, key1) <= bound else float32(0.0)


@cache
def attention(width):
    """(forward, backward) for heads of one width, which the innermost loops are compiled for.

    Softmax attention of some tokens over their own sequences up to themselves:

    - q: (Q, H, W), queries of the tokens in ``slots`` (Q,). k, v: (T, H, W), of all tokens;
    - starts: (T,), slot in which a token's sequence begins;
    - pads: (T,), how many null keys ``null`` (2, H, W) a token also sees; (0,) for none;
    - maxlen: M, bound of a sequence's length;
    - keys: (2, 2) uint32, noise of the weights and of the pads;
    - out: (Q, H, W). weights: (Q, H, M + 1) to keep them for the gradient, or (1, H, M + 1); the
      null keys' weight is the last.

    The backward pass is for all T tokens and writes the gradients by q, k, v and null.
    """

    def forward(q, k, v, slots, starts, pads, null, maxlen, bound, scale, keys, out, weights):
        heads = q.shape[1]
        root = float32(1.0) / math.sqrt(float32(width))
        keeping = np.empty(maxlen, dtype=np.float32)
        for i in range(slots.size):
            t = slots[i]
            begin = starts[t]
            length = t - begin + 1
            padded = pads[t] if pads.size else 0
            for h in range(heads):
                qi, oi, w = q[i, h], out[i, h], weights[i % weights.shape[0], h]
                largest = float32(-np.inf)
                for j in range(length):
                    kj, score = k[begin + j, h], float32(0.0)
                    for d in range(width):
                        score += qi[d] * kj[d]
                    w[j] = score * root
                    largest = max(largest, w[j])
                total = float32(0.0)
                if padded:
                    w[maxlen] = _dot(qi, null[0, h]) * root
                    largest = max(largest, w[maxlen])
                    w[maxlen] = float32(padded) * _exp(w[maxlen] - largest)
                    total = w[maxlen]
                for j in range(length):
                    w[j] = _exp(w[j] - largest)
                    total += w[j]
                first, kept = (t * heads + h) * maxlen, keeping[:length]
                _kept(first, bound, scale, keys[0, 0], keys[0, 1], kept)
                for d in range(width):
                    oi[d] = float32(0.0)
                for j in range(length):
                    w[j] /= total
                    vj, share = v[begin + j, h], w[j] * kept[j]
                    for d in range(width):
                        oi[d] += share * vj[d]
                if padded:
                    w[maxlen] /= total
                    left = _kept_pads(first, padded, bound, keys[1, 0], keys[1, 1])
                    _add(oi, w[maxlen] * scale * float32(left) / float32(padded), null[1, h])

    def backward(
        dout, q, k, v, starts, pads, null, maxlen, bound, scale, keys, weights, dq, dk, dv, dnull
    ):
        size, heads = q.shape[:2]
        root = float32(1.0) / math.sqrt(float32(width))
        keeping = np.empty(maxlen, dtype=np.float32)
        g = np.empty(maxlen, dtype=np.float32)
        dq[:] = 0
        dk[:] = 0
        dv[:] = 0
        dnull[:] = 0
        for t in range(size):
            begin = starts[t]
            length = t - begin + 1
            padded = pads[t] if pads.size else 0
            for h in range(heads):
                w, do, qt, dqt = weights[t, h], dout[t, h], q[t, h], dq[t, h]
                first, kept = (t * heads + h) * maxlen, keeping[:length]
                _kept(first, bound, scale, keys[0, 0], keys[0, 1], kept)
                total = float32(0.0)
                for j in range(length):
                    vj, slope = v[begin + j, h], float32(0.0)
                    for d in range(width):
                        slope += do[d] * vj[d]
                    g[j] = slope * kept[j]
                    total += w[j] * g[j]
                null_slope = float32(0.0)
                if padded:
                    left = _kept_pads(first, padded, bound, keys[1, 0], keys[1, 1])
                    share = scale * float32(left) / float32(padded)
                    _add(dnull[1, h], w[maxlen] * share, do)
                    null_slope = _dot(do, null[1, h]) * share
                    total += w[maxlen] * null_slope
                for j in range(length):
                    ds, share = w[j] * (g[j] - total) * root, w[j] * kept[j]
                    kj, dkj, dvj = k[begin + j, h], dk[begin + j, h], dv[begin + j, h]
                    for d in range(width):
                        dvj[d] += share * do[d]
                    for d in range(width):
                        dkj[d] += ds * qt[d]
                    for d in range(width):
                        dqt[d] += ds * kj[d]
                if padded:
                    ds = w[maxlen] * (null_slope - total) * root
                    _add(dqt, ds, null[0, h])
                    _add(dnull[0, h], ds, qt)

    return _compiled(forward), _compiled(backward)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def count_ahead(scores, first, wanted, targets, seen_offsets, seen_items, ranks):
    """See models.ranking.plain_count. No fastmath: a NaN must count."""
    users, items = scores.shape
    out = float32(-np.inf)
    for u in range(users):
        row, score = scores[u], wanted[u]
        for i in range(seen_offsets[u], seen_offsets[u + 1]):
            here = seen_items[i] - first
            if 0 <= here < items:
                row[here] = out
        here = targets[u] - first
        if 0 <= here < items:
            row[here] = out
        ahead = int32(0)
        for i in range(items):
            ahead += int32((row[i] != out) & (not (row[i] < score)))
        ranks[u] += ahead
