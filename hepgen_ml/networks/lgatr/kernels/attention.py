"""Attention among the tokens of an event, and its gradient.

Columns of queries, keys and values are (half, part, head, channel), those of the plain
scalars behind them (part, head, channel); columns of the result the same without part.
Within an event the features of a head lie side by side: 16 components of its channels in
the order s, p, v_t, a_t, ..., v_z, a_z, E_x, B_x, ..., E_z, B_z, then its plain scalars.
"""

import math

import numba
import numpy as np

from hepgen_ml.networks.lgatr.kernels import inline, parallel
from hepgen_ml.networks.lgatr.kernels.norm import EPSILON, LAYER_NORM_EPSILON, tanh

_ZERO, _ONE, _HALF = np.float32(0.0), np.float32(1.0), np.float32(0.5)


@inline
def _load(s, v, b, t, i, heads, c, plain, square, r, mean, width, w):  # type: ignore[no-untyped-def]
    """Normalised features w (3, heads, tokens, features) of token i of the event, row t.

    `square` is room for the 3 heads c squares; r, mean and width (3, heads, tokens) keep what
    the norms found.
    """
    n = 3 * heads * c
    for x in range(n):
        y = n + x
        square[x] = (
            s[t, x] * s[t, x] + s[t, y] * s[t, y]
            + abs(v[0, t, x] * v[0, t, x] - v[1, t, x] * v[1, t, x]
                  - v[2, t, x] * v[2, t, x] - v[3, t, x] * v[3, t, x])
            + abs(v[0, t, y] * v[0, t, y] - v[1, t, y] * v[1, t, y]
                  - v[2, t, y] * v[2, t, y] - v[3, t, y] * v[3, t, y])
            + abs(b[0, t, x] * b[0, t, x] - b[0, t, y] * b[0, t, y]
                  + b[1, t, x] * b[1, t, x] - b[1, t, y] * b[1, t, y]
                  + b[2, t, x] * b[2, t, x] - b[2, t, y] * b[2, t, y])
        )  # fmt: skip
    for part in range(3):
        for h in range(heads):
            x = (part * heads + h) * c
            total = _ZERO
            for k in range(c):
                total += square[x + k]
            f = _ONE / math.sqrt(max(total / np.float32(c), EPSILON))
            r[part, h, i] = f
            g = w[part, h, i]
            for k in range(c):  # one loop: as many short ones would cost several times as much
                y = x + k
                z = n + y
                g[k], g[c + k] = f * s[t, y], f * s[t, z]
                g[2 * c + k], g[3 * c + k] = f * v[0, t, y], f * v[0, t, z]
                g[4 * c + k], g[5 * c + k] = f * v[1, t, y], f * v[1, t, z]
                g[6 * c + k], g[7 * c + k] = f * v[2, t, y], f * v[2, t, z]
                g[8 * c + k], g[9 * c + k] = f * v[3, t, y], f * v[3, t, z]
                g[10 * c + k], g[11 * c + k] = f * b[0, t, y], f * b[0, t, z]
                g[12 * c + k], g[13 * c + k] = f * b[1, t, y], f * b[1, t, z]
                g[14 * c + k], g[15 * c + k] = f * b[2, t, y], f * b[2, t, z]
            if plain > 0:
                x = 2 * n + (part * heads + h) * plain
                total = _ZERO
                for k in range(plain):
                    total += s[t, x + k]
                total /= np.float32(plain)
                variance = _ZERO
                for k in range(plain):
                    variance += (s[t, x + k] - total) * (s[t, x + k] - total)
                f = _ONE / math.sqrt(variance / np.float32(plain) + LAYER_NORM_EPSILON)
                mean[part, h, i], width[part, h, i] = total, f
                for k in range(plain):
                    w[part, h, i, 16 * c + k] = (s[t, x + k] - total) * f


@inline
def _weigh(q, k, metric, allowed, p, scaled):  # type: ignore[no-untyped-def]
    """Attention weights p (tokens, tokens) of queries and keys (tokens, features)."""
    tokens, features = q.shape
    for i in range(tokens):
        for f in range(features):
            scaled[f] = q[i, f] * metric[f]
        top = np.float32(-np.inf)
        for j in range(0, tokens - 3, 4):  # four at a time, for the loads and the loop they share
            t0, t1, t2, t3 = _ZERO, _ZERO, _ZERO, _ZERO
            for f in range(features):
                x = scaled[f]
                t0 += x * k[j, f]
                t1 += x * k[j + 1, f]
                t2 += x * k[j + 2, f]
                t3 += x * k[j + 3, f]
            p[i, j], p[i, j + 1], p[i, j + 2], p[i, j + 3] = t0, t1, t2, t3
        for j in range(tokens - tokens % 4, tokens):
            total = _ZERO
            for f in range(features):
                total += scaled[f] * k[j, f]
            p[i, j] = total
        for j in range(tokens):
            if allowed[j]:
                top = max(top, p[i, j])
        for j in range(tokens):
            p[i, j] = _HALF * (p[i, j] - top)
    # exp(2 x) = (1 + tanh x) / (1 - tanh x), in a form that the compiler turns into vectors
    flat = p.reshape(-1)
    for x in range(len(flat)):
        y = tanh(min(flat[x], _ZERO))
        flat[x] = (_ONE + y) / (_ONE - y)
    for i in range(tokens):
        total = _ZERO
        for j in range(tokens):
            p[i, j] = p[i, j] if allowed[j] else _ZERO
            total += p[i, j]
        for j in range(tokens):
            p[i, j] /= total


@parallel
def attend(s, v, b, allowed, metric, heads, c, plain, os, ov, ob):  # type: ignore[no-untyped-def]
    """Attended values; `metric` holds sign and scale of each feature in the inner product."""
    events, tokens = allowed.shape
    features, n = 16 * c + plain, heads * c
    for e in numba.prange(events):
        w = np.empty((3, heads, tokens, features), dtype=s.dtype)
        p = np.empty((tokens, tokens), dtype=s.dtype)
        out = np.empty(features, dtype=s.dtype)
        square = np.empty(3 * n, dtype=s.dtype)
        kept = np.empty((3, 3, heads, tokens), dtype=s.dtype)
        for i in range(tokens):
            _load(s, v, b, e * tokens + i, i, heads, c, plain, square, kept[0], kept[1], kept[2], w)
        for h in range(heads):
            _weigh(w[0, h], w[1, h], metric, allowed[e], p, out)
            x, y = h * c, 2 * n + h * plain
            for i in range(tokens):
                t = e * tokens + i
                for f in range(features):
                    out[f] = p[i, 0] * w[2, h, 0, f]
                for j in range(1, tokens):
                    g = p[i, j]
                    for f in range(features):
                        out[f] += g * w[2, h, j, f]
                for k in range(c):
                    z, o = x + k, n + x + k
                    os[t, z], os[t, o] = out[k], out[c + k]
                    ov[0, t, z], ov[0, t, o] = out[2 * c + k], out[3 * c + k]
                    ov[1, t, z], ov[1, t, o] = out[4 * c + k], out[5 * c + k]
                    ov[2, t, z], ov[2, t, o] = out[6 * c + k], out[7 * c + k]
                    ov[3, t, z], ov[3, t, o] = out[8 * c + k], out[9 * c + k]
                    ob[0, t, z], ob[0, t, o] = out[10 * c + k], out[11 * c + k]
                    ob[1, t, z], ob[1, t, o] = out[12 * c + k], out[13 * c + k]
                    ob[2, t, z], ob[2, t, o] = out[14 * c + k], out[15 * c + k]
                for k in range(plain):
                    os[t, y + k] = out[16 * c + k]


@inline
def _pull_back(w, d, r, width, t, x, y, n, c, plain, ds, dv, db):  # type: ignore[no-untyped-def]
    """Gradient d of normalised features w through their norms, to columns x and y of row t."""
    along = _ZERO
    for f in range(16 * c):
        along += d[f] * w[f]
    # where the square is below its floor, the size does not depend on x
    along = _ZERO if r * r * EPSILON >= np.float32(0.999999) else along / np.float32(c)
    for k in range(c):
        ds[t, x + k] = r * (d[k] - along * w[k])
        ds[t, n + x + k] = r * (d[c + k] - along * w[c + k])
        for odd in range(2):
            f, z = (2 + odd) * c + k, x + odd * n + k
            w0, w1, w2, w3 = w[f], w[f + 2 * c], w[f + 4 * c], w[f + 6 * c]
            g = along if w0 * w0 - w1 * w1 - w2 * w2 - w3 * w3 > 0 else -along
            dv[0, t, z] = r * (d[f] - g * w0)
            dv[1, t, z] = r * (d[f + 2 * c] + g * w1)
            dv[2, t, z] = r * (d[f + 4 * c] + g * w2)
            dv[3, t, z] = r * (d[f + 6 * c] + g * w3)
        f, z = 10 * c + k, 11 * c + k
        e0, e1, e2, b0, b1, b2 = w[f], w[f + 2 * c], w[f + 4 * c], w[z], w[z + 2 * c], w[z + 4 * c]
        square = b0 * b0 + b1 * b1 + b2 * b2 - e0 * e0 - e1 * e1 - e2 * e2
        g = along if square > 0 else -along
        for m in range(3):
            db[m, t, x + k] = r * (d[f + 2 * m * c] + g * w[f + 2 * m * c])
            db[m, t, n + x + k] = r * (d[z + 2 * m * c] - g * w[z + 2 * m * c])
    total, along = _ZERO, _ZERO
    for f in range(16 * c, 16 * c + plain):
        total += d[f]
        along += d[f] * w[f]
    total /= np.float32(max(plain, 1))
    along /= np.float32(max(plain, 1))
    for k in range(plain):
        f = 16 * c + k
        ds[t, y + k] = width * (d[f] - total - w[f] * along)


@parallel
def attend_gradient(  # type: ignore[no-untyped-def]
    s, v, b, allowed, metric, heads, c, plain, gs, gv, gb, ds, dv, db
):
    """Gradient of `attend`; weights and normalised features are made again from the input."""
    events, tokens = allowed.shape
    features, n = 16 * c + plain, heads * c
    for e in numba.prange(events):
        w = np.empty((3, heads, tokens, features), dtype=s.dtype)
        d = np.empty((3, tokens, features), dtype=s.dtype)
        p = np.empty((tokens, tokens), dtype=s.dtype)
        slope = np.empty(tokens, dtype=s.dtype)
        out = np.empty(features, dtype=s.dtype)
        square = np.empty(3 * n, dtype=s.dtype)
        kept = np.empty((3, 3, heads, tokens), dtype=s.dtype)
        for i in range(tokens):
            _load(s, v, b, e * tokens + i, i, heads, c, plain, square, kept[0], kept[1], kept[2], w)
        for h in range(heads):
            q, k, u = w[0, h], w[1, h], w[2, h]
            _weigh(q, k, metric, allowed[e], p, out)
            d[:] = _ZERO
            x, y = h * c, 2 * n + h * plain
            for i in range(tokens):
                t = e * tokens + i
                for a in range(c):
                    z, o = x + a, n + x + a
                    out[a], out[c + a] = gs[t, z], gs[t, o]
                    out[2 * c + a], out[3 * c + a] = gv[0, t, z], gv[0, t, o]
                    out[4 * c + a], out[5 * c + a] = gv[1, t, z], gv[1, t, o]
                    out[6 * c + a], out[7 * c + a] = gv[2, t, z], gv[2, t, o]
                    out[8 * c + a], out[9 * c + a] = gv[3, t, z], gv[3, t, o]
                    out[10 * c + a], out[11 * c + a] = gb[0, t, z], gb[0, t, o]
                    out[12 * c + a], out[13 * c + a] = gb[1, t, z], gb[1, t, o]
                    out[14 * c + a], out[15 * c + a] = gb[2, t, z], gb[2, t, o]
                for a in range(plain):
                    out[16 * c + a] = gs[t, y + a]
                mean = _ZERO
                for j in range(tokens):
                    total = _ZERO
                    for f in range(features):
                        total += out[f] * u[j, f]
                    slope[j] = total
                    mean += p[i, j] * total
                    g = p[i, j]
                    for f in range(features):
                        d[2, j, f] += g * out[f]
                for j in range(tokens):
                    g = p[i, j] * (slope[j] - mean)
                    for f in range(features):
                        d[0, i, f] += g * metric[f] * k[j, f]
                    for f in range(features):
                        d[1, j, f] += g * metric[f] * q[i, f]
            for part in range(3):
                x, y = (part * heads + h) * c, 6 * n + (part * heads + h) * plain
                for i in range(tokens):
                    _pull_back(w[part, h, i], d[part, i], kept[0, part, h, i], kept[2, part, h, i],
                               e * tokens + i, x, y, 3 * n, c, plain, ds, dv, db)  # fmt: skip
