"""Norms over channels, with gain or with the gate of the scalar, and their gradients."""

import math

import numba
import numpy as np

from hepgen_ml.networks.lgatr.kernels import GROUP, inline, parallel

EPSILON = np.float32(0.01)
LAYER_NORM_EPSILON = np.float32(1e-5)

# tanh as an odd rational function, good to 1e-7 within +-7.9 (coefficients of Eigen's ptanh).
_P = (-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
      1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03)  # fmt: skip
_Q = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
_P0, _P1, _P2, _P3, _P4, _P5, _P6 = (np.float32(p) for p in _P)
_Q0, _Q1, _Q2, _Q3 = (np.float32(q) for q in _Q)
_BOUND = np.float32(7.90531110763549805)
_ROOT = np.float32(math.sqrt(2 / math.pi))
_CUBE = np.float32(0.044715)
_HALF, _ONE, _THREE = np.float32(0.5), np.float32(1.0), np.float32(3.0)


@inline
def tanh(x):  # type: ignore[no-untyped-def]
    """Hyperbolic tangent, without branches."""
    x = max(min(x, _BOUND), -_BOUND)
    u = x * x
    p = ((((((_P0 * u + _P1) * u + _P2) * u + _P3) * u + _P4) * u + _P5) * u + _P6) * x
    return p / (((_Q0 * u + _Q1) * u + _Q2) * u + _Q3)


@inline
def _gelu(x):  # type: ignore[no-untyped-def]
    return _HALF * x * (_ONE + tanh(_ROOT * x * (_ONE + _CUBE * x * x)))


@inline
def _gelu_slope(x):  # type: ignore[no-untyped-def]
    h = tanh(_ROOT * x * (_ONE + _CUBE * x * x))
    slope = _ROOT * (_ONE + _THREE * _CUBE * x * x)
    return _HALF * (_ONE + h) + _HALF * x * (_ONE - h * h) * slope


@inline
def _square(s, v, b, t, c):  # type: ignore[no-untyped-def]
    """Mean over channels of the sum over grades of |<x, x>|."""
    total = np.float32(0.0)
    for i in range(c):
        total += s[t, i] * s[t, i] + s[t, c + i] * s[t, c + i]
    for i in range(2 * c):
        total += abs(v[0, t, i] * v[0, t, i] - v[1, t, i] * v[1, t, i]
                     - v[2, t, i] * v[2, t, i] - v[3, t, i] * v[3, t, i])  # fmt: skip
    for i in range(c):
        j = c + i
        total += abs(b[0, t, j] * b[0, t, j] - b[0, t, i] * b[0, t, i]
                     + b[1, t, j] * b[1, t, j] - b[1, t, i] * b[1, t, i]
                     + b[2, t, j] * b[2, t, j] - b[2, t, i] * b[2, t, i])  # fmt: skip
    return total / np.float32(c)


@inline
def _layer_norm(s, t, first, n):  # type: ignore[no-untyped-def]
    """Mean and inverse width of plain scalars."""
    mean = np.float32(0.0)
    for i in range(n):
        mean += s[t, first + i]
    mean /= np.float32(max(n, 1))
    variance = np.float32(0.0)
    for i in range(n):
        d = s[t, first + i] - mean
        variance += d * d
    return mean, _ONE / math.sqrt(variance / np.float32(max(n, 1)) + LAYER_NORM_EPSILON)


@parallel
def norm(s, v, b, gain, os, ov, ob):  # type: ignore[no-untyped-def]
    """Norm with gain: (2C of scalars, 2C of vectors, C of bivectors, plain scalars)."""
    tokens, c = s.shape[0], v.shape[2] // 2
    plain = s.shape[1] - 2 * c
    for group in numba.prange((tokens + GROUP - 1) // GROUP):
        for t in range(group * GROUP, min(tokens, group * GROUP + GROUP)):
            r = _ONE / math.sqrt(max(_square(s, v, b, t, c), EPSILON))
            mean, width = _layer_norm(s, t, 2 * c, plain)
            for i in range(2 * c):
                os[t, i] = s[t, i] * r * gain[i]
            for i in range(plain):
                os[t, 2 * c + i] = (s[t, 2 * c + i] - mean) * width * gain[5 * c + i]
            for m in range(4):
                for i in range(2 * c):
                    ov[m, t, i] = v[m, t, i] * r * gain[2 * c + i]
            for m in range(3):
                for i in range(c):
                    ob[m, t, i] = b[m, t, i] * r * gain[4 * c + i]
                    ob[m, t, c + i] = b[m, t, c + i] * r * gain[4 * c + i]


@inline
def _pull_back(s, v, b, t, c, r, along, ds, dv, db):  # type: ignore[no-untyped-def]
    """Gradients of y = x r in place: d becomes r d - along r^3 / C sigma x.

    sigma x is half the gradient of the square; `along` the sum of d times x.
    """
    square = _square(s, v, b, t, c)
    f = along * r * r * r / np.float32(c) if square > EPSILON else np.float32(0.0)
    for i in range(2 * c):
        ds[t, i] = r * ds[t, i] - f * s[t, i]
    for i in range(2 * c):
        n = (v[0, t, i] * v[0, t, i] - v[1, t, i] * v[1, t, i]
             - v[2, t, i] * v[2, t, i] - v[3, t, i] * v[3, t, i])  # fmt: skip
        g = f if n > 0 else -f
        dv[0, t, i] = r * dv[0, t, i] - g * v[0, t, i]
        dv[1, t, i] = r * dv[1, t, i] + g * v[1, t, i]
        dv[2, t, i] = r * dv[2, t, i] + g * v[2, t, i]
        dv[3, t, i] = r * dv[3, t, i] + g * v[3, t, i]
    for i in range(c):
        j = c + i
        n = (b[0, t, j] * b[0, t, j] - b[0, t, i] * b[0, t, i]
             + b[1, t, j] * b[1, t, j] - b[1, t, i] * b[1, t, i]
             + b[2, t, j] * b[2, t, j] - b[2, t, i] * b[2, t, i])  # fmt: skip
        g = f if n > 0 else -f
        for m in range(3):
            db[m, t, i] = r * db[m, t, i] + g * b[m, t, i]
            db[m, t, j] = r * db[m, t, j] - g * b[m, t, j]


@inline
def _layer_norm_pull_back(s, t, first, n, mean, width, ds):  # type: ignore[no-untyped-def]
    """Gradients of the layer norm of plain scalars in place."""
    total, along = np.float32(0.0), np.float32(0.0)
    for i in range(n):
        total += ds[t, first + i]
        along += ds[t, first + i] * (s[t, first + i] - mean) * width
    total /= np.float32(max(n, 1))
    along /= np.float32(max(n, 1))
    for i in range(n):
        x = (s[t, first + i] - mean) * width
        ds[t, first + i] = width * (ds[t, first + i] - total - x * along)


@parallel
def norm_gradient(s, v, b, gain, gs, gv, gb, ds, dv, db, dgain):  # type: ignore[no-untyped-def]
    """Gradient of `norm`; that of the gain is summed within groups of tokens (groups, .)."""
    tokens, c = s.shape[0], v.shape[2] // 2
    plain = s.shape[1] - 2 * c
    for group in numba.prange((tokens + GROUP - 1) // GROUP):
        dgain[group, :] = np.float32(0.0)
        for t in range(group * GROUP, min(tokens, group * GROUP + GROUP)):
            r = _ONE / math.sqrt(max(_square(s, v, b, t, c), EPSILON))
            mean, width = _layer_norm(s, t, 2 * c, plain)
            along = np.float32(0.0)
            for i in range(2 * c):
                x = gs[t, i] * s[t, i]
                along += x * gain[i]
                dgain[group, i] += x * r
                ds[t, i] = gs[t, i] * gain[i]
            for i in range(plain):
                dgain[group, 5 * c + i] += gs[t, 2 * c + i] * (s[t, 2 * c + i] - mean) * width
                ds[t, 2 * c + i] = gs[t, 2 * c + i] * gain[5 * c + i]
            for m in range(4):
                for i in range(2 * c):
                    x = gv[m, t, i] * v[m, t, i]
                    along += x * gain[2 * c + i]
                    dgain[group, 2 * c + i] += x * r
                    dv[m, t, i] = gv[m, t, i] * gain[2 * c + i]
            for m in range(3):
                for i in range(c):
                    x = gb[m, t, i] * b[m, t, i] + gb[m, t, c + i] * b[m, t, c + i]
                    along += x * gain[4 * c + i]
                    dgain[group, 4 * c + i] += x * r
                    db[m, t, i] = gb[m, t, i] * gain[4 * c + i]
                    db[m, t, c + i] = gb[m, t, c + i] * gain[4 * c + i]
            _pull_back(s, v, b, t, c, r, along, ds, dv, db)
            _layer_norm_pull_back(s, t, 2 * c, plain, mean, width, ds)


@parallel
def gate(s, v, b, os, ov, ob):  # type: ignore[no-untyped-def]
    """Norm without gain, then everything times GELU of its channel's scalar."""
    tokens, c = s.shape[0], v.shape[2] // 2
    plain = s.shape[1] - 2 * c
    for group in numba.prange((tokens + GROUP - 1) // GROUP):
        g = np.empty(2 * c, dtype=s.dtype)
        for t in range(group * GROUP, min(tokens, group * GROUP + GROUP)):
            r = _ONE / math.sqrt(max(_square(s, v, b, t, c), EPSILON))
            mean, width = _layer_norm(s, t, 2 * c, plain)
            for i in range(c):
                g[i] = r * _gelu(s[t, i] * r)
            for i in range(c):
                g[c + i] = g[i]
            for i in range(2 * c):
                os[t, i] = s[t, i] * g[i]
            for i in range(plain):
                os[t, 2 * c + i] = _gelu((s[t, 2 * c + i] - mean) * width)
            for m in range(4):
                for i in range(2 * c):
                    ov[m, t, i] = v[m, t, i] * g[i]
            for m in range(3):
                for i in range(2 * c):
                    ob[m, t, i] = b[m, t, i] * g[i]


@parallel
def gate_gradient(s, v, b, gs, gv, gb, ds, dv, db):  # type: ignore[no-untyped-def]
    """Gradient of `gate`."""
    tokens, c = s.shape[0], v.shape[2] // 2
    plain = s.shape[1] - 2 * c
    for group in numba.prange((tokens + GROUP - 1) // GROUP):
        g, slope = np.empty(2 * c, dtype=s.dtype), np.empty(c, dtype=s.dtype)
        sums = np.empty(2 * c, dtype=s.dtype)
        for t in range(group * GROUP, min(tokens, group * GROUP + GROUP)):
            r = _ONE / math.sqrt(max(_square(s, v, b, t, c), EPSILON))
            mean, width = _layer_norm(s, t, 2 * c, plain)
            for i in range(c):
                g[i] = _gelu(s[t, i] * r)
                slope[i] = _gelu_slope(s[t, i] * r)
            for i in range(c):
                g[c + i] = g[i]
            for i in range(2 * c):
                sums[i] = gs[t, i] * s[t, i]
                ds[t, i] = gs[t, i] * g[i]
            for m in range(4):
                for i in range(2 * c):
                    sums[i] += gv[m, t, i] * v[m, t, i]
                    dv[m, t, i] = gv[m, t, i] * g[i]
            for m in range(3):
                for i in range(2 * c):
                    sums[i] += gb[m, t, i] * b[m, t, i]
                    db[m, t, i] = gb[m, t, i] * g[i]
            along = np.float32(0.0)
            for i in range(2 * c):
                along += sums[i] * g[i]
            for i in range(c):
                more = (sums[i] + sums[c + i]) * r * slope[i]
                ds[t, i] += more
                along += more * s[t, i]
            _pull_back(s, v, b, t, c, r, along, ds, dv, db)
            for i in range(plain):
                ds[t, 2 * c + i] = gs[t, 2 * c + i] * _gelu_slope((s[t, 2 * c + i] - mean) * width)
            _layer_norm_pull_back(s, t, 2 * c, plain, mean, width, ds)
