"""Geometric product of neighbouring groups of channels, and its gradient."""

import numba
import numpy as np

from hepgen_ml.networks.lgatr.kernels import GROUP, inline, parallel

LANES = 16
"""Channels side by side. Their 16 components are gathered first: with so many separate
addresses the compiler could not otherwise prove that results do not overwrite inputs."""


@inline
def _pauli(ar, ai, br, bi):  # type: ignore[no-untyped-def]
    """(a_0 + a.sigma)(b_0 + b.sigma) of four real and imaginary parts each."""
    (a0, a1, a2, a3), (c0, c1, c2, c3) = ar, ai
    (b0, b1, b2, b3), (d0, d1, d2, d3) = br, bi
    r0 = a0 * b0 - c0 * d0 + a1 * b1 - c1 * d1 + a2 * b2 - c2 * d2 + a3 * b3 - c3 * d3
    i0 = a0 * d0 + c0 * b0 + a1 * d1 + c1 * b1 + a2 * d2 + c2 * b2 + a3 * d3 + c3 * b3
    # i (a x b): the real part takes minus the imaginary part of the cross product
    r1 = a0 * b1 - c0 * d1 + a1 * b0 - c1 * d0 - (a2 * d3 + c2 * b3 - a3 * d2 - c3 * b2)
    i1 = a0 * d1 + c0 * b1 + a1 * d0 + c1 * b0 + (a2 * b3 - c2 * d3 - a3 * b2 + c3 * d2)
    r2 = a0 * b2 - c0 * d2 + a2 * b0 - c2 * d0 - (a3 * d1 + c3 * b1 - a1 * d3 - c1 * b3)
    i2 = a0 * d2 + c0 * b2 + a2 * d0 + c2 * b0 + (a3 * b1 - c3 * d1 - a1 * b3 + c1 * d3)
    r3 = a0 * b3 - c0 * d3 + a3 * b0 - c3 * d0 - (a1 * d2 + c1 * b2 - a2 * d1 - c2 * b1)
    i3 = a0 * d3 + c0 * b3 + a3 * d0 + c3 * b0 + (a1 * b2 - c1 * d2 - a2 * b1 + c2 * d1)
    return (r0, r1, r2, r3), (i0, i1, i2, i3)


@inline
def _add(a, b):  # type: ignore[no-untyped-def]
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3])


@inline
def _flip(a, first, rest):  # type: ignore[no-untyped-def]
    return (first * a[0], rest * a[1], rest * a[2], rest * a[3])


@inline
def _product(pr, pi, qr, qi, rr, ri, sr, si):  # type: ignore[no-untyped-def]
    """(P + Q gamma_0)(R + S gamma_0), see `algebra.geometric_product`."""
    one = np.float32(1.0)
    er, ei = _pauli(pr, pi, rr, ri)
    fr, fi = _pauli(qr, qi, _flip(sr, one, -one), _flip(si, -one, one))
    gr, gi = _pauli(pr, pi, sr, si)
    hr, hi = _pauli(qr, qi, _flip(rr, one, -one), _flip(ri, -one, one))
    return _add(er, fr), _add(ei, fi), _add(gr, hr), _add(gi, hi)


@inline
def _gather(w, k, s, v, b, t, i, j, n):  # type: ignore[no-untyped-def]
    """Components of n channels into rows k to k + 15 of w.

    Real and imaginary parts of the even element, then of the odd one; i and j are the
    columns where the halves begin.
    """
    for lane in range(n):
        w[k, lane] = s[t, i + lane]
        w[k + 4, lane] = s[t, j + lane]
    for m in range(3):
        for lane in range(n):
            w[k + 1 + m, lane] = b[m, t, i + lane]
            w[k + 5 + m, lane] = b[m, t, j + lane]
    for m in range(4):
        for lane in range(n):
            w[k + 8 + m, lane] = v[m, t, i + lane]
            w[k + 12 + m, lane] = v[m, t, j + lane]


@inline
def _scatter(w, k, s, v, b, t, i, j, n):  # type: ignore[no-untyped-def]
    """Inverse of `_gather`."""
    for lane in range(n):
        s[t, i + lane] = w[k, lane]
        s[t, j + lane] = w[k + 4, lane]
    for m in range(3):
        for lane in range(n):
            b[m, t, i + lane] = w[k + 1 + m, lane]
            b[m, t, j + lane] = w[k + 5 + m, lane]
    for m in range(4):
        for lane in range(n):
            v[m, t, i + lane] = w[k + 8 + m, lane]
            v[m, t, j + lane] = w[k + 12 + m, lane]


@inline
def _load(w, k, i):  # type: ignore[no-untyped-def]
    return (
        (w[k, i], w[k + 1, i], w[k + 2, i], w[k + 3, i]),
        (w[k + 4, i], w[k + 5, i], w[k + 6, i], w[k + 7, i]),
        (w[k + 8, i], w[k + 9, i], w[k + 10, i], w[k + 11, i]),
        (w[k + 12, i], w[k + 13, i], w[k + 14, i], w[k + 15, i]),
    )


@inline
def _store(w, k, i, er, ei, fr, fi):  # type: ignore[no-untyped-def]
    w[k, i], w[k + 1, i], w[k + 2, i], w[k + 3, i] = er
    w[k + 4, i], w[k + 5, i], w[k + 6, i], w[k + 7, i] = ei
    w[k + 8, i], w[k + 9, i], w[k + 10, i], w[k + 11, i] = fr
    w[k + 12, i], w[k + 13, i], w[k + 14, i], w[k + 15, i] = fi


@parallel
def product(s, v, b, plain, first, os, ov, ob):  # type: ignore[no-untyped-def]
    """Product; columns `first` and up of `plain` are appended to the scalars.

    Input columns are (half, factor, channel), those of the output (half, channel).
    """
    tokens, c = s.shape[0], v.shape[2] // 4
    for group in numba.prange((tokens + GROUP - 1) // GROUP):
        w = np.empty((48, LANES), dtype=s.dtype)
        for t in range(group * GROUP, min(tokens, group * GROUP + GROUP)):
            for i in range(0, c, LANES):
                n = min(LANES, c - i)
                _gather(w, 0, s, v, b, t, i, i + 2 * c, n)
                _gather(w, 16, s, v, b, t, i + c, i + 3 * c, n)
                for lane in range(LANES):
                    pr, pi, qr, qi = _load(w, 0, lane)
                    rr, ri, sr, si = _load(w, 16, lane)
                    er, ei, fr, fi = _product(pr, pi, qr, qi, rr, ri, sr, si)
                    _store(w, 32, lane, er, ei, fr, fi)
                _scatter(w, 32, os, ov, ob, t, i, i + c, n)
            for i in range(plain.shape[1] - first):
                os[t, 2 * c + i] = plain[t, first + i]


@parallel
def product_gradient(s, v, b, gs, gv, gb, ds, dv, db):  # type: ignore[no-untyped-def]
    """Gradient of `product`: with eta the metric, dL = eta ((eta g) ~R), dR = eta (~L (eta g))."""
    one = np.float32(1.0)
    tokens, c = s.shape[0], v.shape[2] // 4
    for group in numba.prange((tokens + GROUP - 1) // GROUP):
        w = np.empty((80, LANES), dtype=s.dtype)
        for t in range(group * GROUP, min(tokens, group * GROUP + GROUP)):
            for i in range(0, c, LANES):
                n = min(LANES, c - i)
                _gather(w, 0, s, v, b, t, i, i + 2 * c, n)
                _gather(w, 16, s, v, b, t, i + c, i + 3 * c, n)
                _gather(w, 32, gs, gv, gb, t, i, i + c, n)
                for lane in range(LANES):
                    pr, pi, qr, qi = _load(w, 0, lane)
                    rr, ri, sr, si = _load(w, 16, lane)
                    er, ei, fr, fi = _load(w, 32, lane)
                    # eta: + on s, v_0, a_k, B; - on p, v_k, a_0, E
                    er, ei = _flip(er, one, -one), _flip(ei, -one, one)
                    fr, fi = _flip(fr, one, -one), _flip(fi, -one, one)
                    # reversal: bivectors and axial vectors change their sign
                    rr, ri, si = _flip(rr, one, -one), _flip(ri, one, -one), _flip(si, -one, -one)
                    pr, pi, qi = _flip(pr, one, -one), _flip(pi, one, -one), _flip(qi, -one, -one)
                    ar, ai, cr, ci = _product(er, ei, fr, fi, rr, ri, sr, si)
                    ar, ai = _flip(ar, one, -one), _flip(ai, -one, one)
                    cr, ci = _flip(cr, one, -one), _flip(ci, -one, one)
                    _store(w, 48, lane, ar, ai, cr, ci)
                    ar, ai, cr, ci = _product(pr, pi, qr, qi, er, ei, fr, fi)
                    ar, ai = _flip(ar, one, -one), _flip(ai, -one, one)
                    cr, ci = _flip(cr, one, -one), _flip(ci, -one, one)
                    _store(w, 64, lane, ar, ai, cr, ci)
                _scatter(w, 48, ds, dv, db, t, i, i + 2 * c, n)
                _scatter(w, 64, ds, dv, db, t, i + c, i + 3 * c, n)
