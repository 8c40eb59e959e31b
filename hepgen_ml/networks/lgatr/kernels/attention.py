"""Attention among the tokens of an event, all heads side by side, and its gradient.

Columns of queries, keys and values are (half, part, channel, head), those of the plain
scalars behind them (part, channel, head). Within an event everything is arranged as
(token, feature, head), features in the order of `layers`, so that the innermost loop is one vector of heads; its length is
a constant of the compiled kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np

from hepgen_ml.networks.lgatr.kernels import inline, parallel
from hepgen_ml.networks.lgatr.kernels.norm import EPSILON, LAYER_NORM_EPSILON

_ONE, _ZERO = np.float32(1.0), np.float32(0.0)
_LOWEST = np.float32(-1e30)

Kernel = Callable[..., Any]


@cache
def kernels(heads: int) -> SimpleNamespace:
    """Kernels ``attend`` and ``attend_gradient`` for this number of heads."""
    H = heads

    @inline
    def load(w, s, v, b, t, part, c, plain, r, mean, width):  # type: ignore[no-untyped-def]
        """Normalised features (16c + plain, H) of one of query, key and value."""
        n = 3 * c * H
        for h in range(H):
            r[h] = _ZERO
        for i in range(c):
            x = (part * c + i) * H
            for h in range(H):
                w[i, h] = s[t, x + h]
                w[c + i, h] = s[t, n + x + h]
            for m in range(4):
                for h in range(H):
                    w[(2 + 2 * m) * c + i, h] = v[m, t, x + h]
                    w[(3 + 2 * m) * c + i, h] = v[m, t, n + x + h]
            for m in range(3):
                for h in range(H):
                    w[(10 + 2 * m) * c + i, h] = b[m, t, x + h]
                    w[(11 + 2 * m) * c + i, h] = b[m, t, n + x + h]
            for h in range(H):
                r[h] += w[i, h] * w[i, h] + w[c + i, h] * w[c + i, h]
            for k in (2, 3):
                for h in range(H):
                    r[h] += abs(w[k * c + i, h] * w[k * c + i, h]
                                - w[(k + 2) * c + i, h] * w[(k + 2) * c + i, h]
                                - w[(k + 4) * c + i, h] * w[(k + 4) * c + i, h]
                                - w[(k + 6) * c + i, h] * w[(k + 6) * c + i, h])  # fmt: skip
            for h in range(H):
                r[h] += abs(w[10 * c + i, h] * w[10 * c + i, h] - w[11 * c + i, h] * w[11 * c + i, h]
                            + w[12 * c + i, h] * w[12 * c + i, h] - w[13 * c + i, h] * w[13 * c + i, h]
                            + w[14 * c + i, h] * w[14 * c + i, h] - w[15 * c + i, h] * w[15 * c + i, h])  # fmt: skip
        for h in range(H):
            r[h] = _ONE / math.sqrt(max(r[h] / np.float32(c), EPSILON))
        for f in range(16 * c):
            for h in range(H):
                w[f, h] *= r[h]
        if plain == 0:
            return
        for h in range(H):
            mean[h], width[h] = _ZERO, _ZERO
        for k in range(plain):
            x = 2 * n + (part * plain + k) * H
            for h in range(H):
                w[16 * c + k, h] = s[t, x + h]
                mean[h] += s[t, x + h]
        for h in range(H):
            mean[h] /= np.float32(plain)
        for k in range(plain):
            for h in range(H):
                w[16 * c + k, h] -= mean[h]
                width[h] += w[16 * c + k, h] * w[16 * c + k, h]
        for h in range(H):
            width[h] = _ONE / math.sqrt(width[h] / np.float32(plain) + LAYER_NORM_EPSILON)
        for k in range(plain):
            for h in range(H):
                w[16 * c + k, h] *= width[h]

    @inline
    def weigh(q, k, allowed, tokens, features, p):  # type: ignore[no-untyped-def]
        """Attention weights (token, token, H) of queries that carry metric and scale."""
        for i in range(tokens):
            for j in range(tokens):
                for h in range(H):
                    p[i, j, h] = _ZERO if allowed[j] else _LOWEST
            for f in range(features):
                for j in range(tokens):
                    for h in range(H):
                        p[i, j, h] += q[i, f, h] * k[j, f, h]
            for h in range(H):
                top, total = p[i, 0, h], _ZERO
                for j in range(1, tokens):
                    top = max(top, p[i, j, h])
                for j in range(tokens):
                    p[i, j, h] = math.exp(p[i, j, h] - top)
                    total += p[i, j, h]
                for j in range(tokens):
                    p[i, j, h] /= total

    @inline
    def store(w, t, c, plain, s, v, b):  # type: ignore[no-untyped-def]
        """Features as columns (half, channel, head)."""
        n = c * H
        for i in range(c):
            for h in range(H):
                s[t, i * H + h] = w[i, h]
                s[t, n + i * H + h] = w[c + i, h]
            for m in range(4):
                for h in range(H):
                    v[m, t, i * H + h] = w[(2 + 2 * m) * c + i, h]
                    v[m, t, n + i * H + h] = w[(3 + 2 * m) * c + i, h]
            for m in range(3):
                for h in range(H):
                    b[m, t, i * H + h] = w[(10 + 2 * m) * c + i, h]
                    b[m, t, n + i * H + h] = w[(11 + 2 * m) * c + i, h]
        for k in range(plain):
            for h in range(H):
                s[t, 2 * n + k * H + h] = w[16 * c + k, h]

    @inline
    def fetch(w, t, c, plain, s, v, b):  # type: ignore[no-untyped-def]
        """Inverse of `store`."""
        n = c * H
        for i in range(c):
            for h in range(H):
                w[i, h] = s[t, i * H + h]
                w[c + i, h] = s[t, n + i * H + h]
            for m in range(4):
                for h in range(H):
                    w[(2 + 2 * m) * c + i, h] = v[m, t, i * H + h]
                    w[(3 + 2 * m) * c + i, h] = v[m, t, n + i * H + h]
            for m in range(3):
                for h in range(H):
                    w[(10 + 2 * m) * c + i, h] = b[m, t, i * H + h]
                    w[(11 + 2 * m) * c + i, h] = b[m, t, n + i * H + h]
        for k in range(plain):
            for h in range(H):
                w[16 * c + k, h] = s[t, 2 * n + k * H + h]

    @parallel
    def attend(s, v, b, allowed, metric, c, plain, os, ov, ob):  # type: ignore[no-untyped-def]
        events, tokens = allowed.shape
        features = 16 * c + plain
        for e in numba.prange(events):
            q = np.empty((tokens, features, H), dtype=s.dtype)
            k = np.empty((tokens, features, H), dtype=s.dtype)
            u = np.empty((tokens, features, H), dtype=s.dtype)
            p = np.empty((tokens, tokens, H), dtype=s.dtype)
            work = np.empty((3, H), dtype=s.dtype)
            for i in range(tokens):
                t = e * tokens + i
                load(q[i], s, v, b, t, 0, c, plain, work[0], work[1], work[2])
                load(k[i], s, v, b, t, 1, c, plain, work[0], work[1], work[2])
                load(u[i], s, v, b, t, 2, c, plain, work[0], work[1], work[2])
                for f in range(features):
                    for h in range(H):
                        q[i, f, h] *= metric[f]
            weigh(q, k, allowed[e], tokens, features, p)
            for i in range(tokens):
                w = q[i]  # no longer needed
                for f in range(features):
                    for h in range(H):
                        w[f, h] = p[i, 0, h] * u[0, f, h]
                for j in range(1, tokens):
                    for f in range(features):
                        for h in range(H):
                            w[f, h] += p[i, j, h] * u[j, f, h]
                store(w, e * tokens + i, c, plain, os, ov, ob)

    @inline
    def pull_back(w, d, s, v, b, t, part, c, plain, r, width, work, ds, dv, db):  # type: ignore[no-untyped-def]
        """Gradient d of normalised features w through the norm, to the columns."""
        n = 3 * c * H
        along = work
        for h in range(H):
            along[h] = _ZERO
        for f in range(16 * c):
            for h in range(H):
                along[h] += d[f, h] * w[f, h]
        for h in range(H):
            # where the square is below its floor, the size does not depend on x
            floor = r[h] * r[h] * EPSILON >= np.float32(0.999999)
            along[h] = _ZERO if floor else along[h] / np.float32(c)
        for i in range(c):
            x = (part * c + i) * H
            for h in range(H):
                ds[t, x + h] = r[h] * (d[i, h] - along[h] * w[i, h])
                ds[t, n + x + h] = r[h] * (d[c + i, h] - along[h] * w[c + i, h])
            for k in (2, 3):
                column = x if k == 2 else n + x
                for h in range(H):
                    w0, w1 = w[k * c + i, h], w[(k + 2) * c + i, h]
                    w2, w3 = w[(k + 4) * c + i, h], w[(k + 6) * c + i, h]
                    g = along[h] if w0 * w0 - w1 * w1 - w2 * w2 - w3 * w3 > 0 else -along[h]
                    dv[0, t, column + h] = r[h] * (d[k * c + i, h] - g * w0)
                    dv[1, t, column + h] = r[h] * (d[(k + 2) * c + i, h] + g * w1)
                    dv[2, t, column + h] = r[h] * (d[(k + 4) * c + i, h] + g * w2)
                    dv[3, t, column + h] = r[h] * (d[(k + 6) * c + i, h] + g * w3)
            for h in range(H):
                e0, e1, e2 = w[10 * c + i, h], w[12 * c + i, h], w[14 * c + i, h]
                b0, b1, b2 = w[11 * c + i, h], w[13 * c + i, h], w[15 * c + i, h]
                n2 = b0 * b0 + b1 * b1 + b2 * b2 - e0 * e0 - e1 * e1 - e2 * e2
                g = along[h] if n2 > 0 else -along[h]
                db[0, t, x + h] = r[h] * (d[10 * c + i, h] + g * e0)
                db[1, t, x + h] = r[h] * (d[12 * c + i, h] + g * e1)
                db[2, t, x + h] = r[h] * (d[14 * c + i, h] + g * e2)
                db[0, t, n + x + h] = r[h] * (d[11 * c + i, h] - g * b0)
                db[1, t, n + x + h] = r[h] * (d[13 * c + i, h] - g * b1)
                db[2, t, n + x + h] = r[h] * (d[15 * c + i, h] - g * b2)
        for h in range(H):
            total, along_plain = _ZERO, _ZERO
            for k in range(plain):
                total += d[16 * c + k, h]
                along_plain += d[16 * c + k, h] * w[16 * c + k, h]
            total /= np.float32(max(plain, 1))
            along_plain /= np.float32(max(plain, 1))
            for k in range(plain):
                f = 16 * c + k
                ds[t, 2 * n + (part * plain + k) * H + h] = width[h] * (
                    d[f, h] - total - w[f, h] * along_plain
                )

    @parallel
    def attend_gradient(s, v, b, allowed, metric, c, plain, gs, gv, gb, ds, dv, db):  # type: ignore[no-untyped-def]
        events, tokens = allowed.shape
        features = 16 * c + plain
        for e in numba.prange(events):
            w = np.empty((3, tokens, features, H), dtype=s.dtype)
            d = np.zeros((3, tokens, features, H), dtype=s.dtype)
            out = np.empty((features, H), dtype=s.dtype)
            p = np.empty((tokens, tokens, H), dtype=s.dtype)
            r = np.empty((3, tokens, H), dtype=s.dtype)
            width = np.empty((3, tokens, H), dtype=s.dtype)
            work = np.empty(H, dtype=s.dtype)
            slope = np.empty((tokens, H), dtype=s.dtype)
            for i in range(tokens):
                for part in range(3):
                    load(w[part, i], s, v, b, e * tokens + i, part, c, plain, r[part, i], work,
                         width[part, i])  # fmt: skip
                for f in range(features):
                    for h in range(H):
                        w[0, i, f, h] *= metric[f]
            weigh(w[0], w[1], allowed[e], tokens, features, p)
            for i in range(tokens):
                fetch(out, e * tokens + i, c, plain, gs, gv, gb)
                for j in range(tokens):
                    for h in range(H):
                        slope[j, h] = _ZERO
                    for f in range(features):
                        for h in range(H):
                            d[2, j, f, h] += p[i, j, h] * out[f, h]
                            slope[j, h] += w[2, j, f, h] * out[f, h]
                for h in range(H):
                    mean = _ZERO
                    for j in range(tokens):
                        mean += p[i, j, h] * slope[j, h]
                    for j in range(tokens):
                        slope[j, h] = p[i, j, h] * (slope[j, h] - mean)
                for j in range(tokens):
                    for f in range(features):
                        for h in range(H):
                            d[0, i, f, h] += slope[j, h] * w[1, j, f, h]
                            d[1, j, f, h] += slope[j, h] * w[0, i, f, h]
            for i in range(tokens):
                for f in range(features):
                    for h in range(H):
                        d[0, i, f, h] *= metric[f]
                        w[0, i, f, h] /= metric[f]
                for part in range(3):
                    pull_back(w[part, i], d[part, i], s, v, b, e * tokens + i, part, c, plain,
                              r[part, i], width[part, i], work, ds, dv, db)  # fmt: skip

    return SimpleNamespace(attend=attend, attend_gradient=attend_gradient)
