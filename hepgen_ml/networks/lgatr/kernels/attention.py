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
            for k in range(c):
                w[part, h, i, k] = f * s[t, x + k]
                w[part, h, i, c + k] = f * s[t, n + x + k]
            for m in range(4):
                for k in range(c):
                    w[part, h, i, (2 + 2 * m) * c + k] = f * v[m, t, x + k]
                    w[part, h, i, (3 + 2 * m) * c + k] = f * v[m, t, n + x + k]
            for m in range(3):
                for k in range(c):
                    w[part, h, i, (10 + 2 * m) * c + k] = f * b[m, t, x + k]
                    w[part, h, i, (11 + 2 * m) * c + k] = f * b[m, t, n + x + k]
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
        for j in range(tokens):
            total = _ZERO
            for f in range(features):
                total += scaled[f] * k[j, f]
            p[i, j] = total
            if allowed[j]:
                top = max(top, total)
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
                    os[t, x + k] = out[k]
                    os[t, n + x + k] = out[c + k]
                for m in range(4):
                    for k in range(c):
                        ov[m, t, x + k] = out[(2 + 2 * m) * c + k]
                        ov[m, t, n + x + k] = out[(3 + 2 * m) * c + k]
                for m in range(3):
                    for k in range(c):
                        ob[m, t, x + k] = out[(10 + 2 * m) * c + k]
                        ob[m, t, n + x + k] = out[(11 + 2 * m) * c + k]
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
                    out[a] = gs[t, x + a]
                    out[c + a] = gs[t, n + x + a]
                for m in range(4):
                    for a in range(c):
                        out[(2 + 2 * m) * c + a] = gv[m, t, x + a]
                        out[(3 + 2 * m) * c + a] = gv[m, t, n + x + a]
                for m in range(3):
                    for a in range(c):
                        out[(10 + 2 * m) * c + a] = gb[m, t, x + a]
                        out[(11 + 2 * m) * c + a] = gb[m, t, n + x + a]
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
