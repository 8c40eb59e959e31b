"""Machine instructions for compiled text handling: unaligned words, bits, wide products.

Memory is addressed by integer, so that words can be loaded at any byte; every
buffer therefore ends in `PADDING` bytes that belong to it.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numba.extending
from llvmlite import ir  # type: ignore[import-untyped,unused-ignore]
from numba import types

PADDING = 64


def source_version(*modules: ModuleType) -> int:
    """Number that changes with the source of these modules; never 0.

    numba's cache of compiled functions watches the file of the function, not
    those of the functions it calls. A function that has this number in its
    closure is compiled anew when one of them changes.
    """
    text = b"".join(Path(str(module.__file__)).read_bytes() for module in modules)
    return zlib.crc32(text) or 1


intrinsic: Any = numba.extending.intrinsic
_U64 = ir.IntType(64)
_I64 = ir.IntType(64)
_U8 = ir.IntType(8)


def _loader(numba_type, llvm_type):
    @intrinsic
    def load(typingctx, address):
        def generate(context, builder, signature, args):
            pointer = builder.inttoptr(args[0], llvm_type.as_pointer())
            return builder.load(pointer, align=1)

        return numba_type(types.int64), generate

    return load


def _storer(numba_type, llvm_type):
    @intrinsic
    def store(typingctx, address, value):
        def generate(context, builder, signature, args):
            pointer = builder.inttoptr(args[0], llvm_type.as_pointer())
            builder.store(args[1], pointer, align=1)
            return context.get_dummy_value()

        return types.void(types.int64, numba_type), generate

    return store


load8 = _loader(types.uint8, _U8)
load64 = _loader(types.uint64, _U64)
load16 = _loader(types.uint16, ir.IntType(16))
load32 = _loader(types.uint32, ir.IntType(32))
store8 = _storer(types.uint8, _U8)
store64 = _storer(types.uint64, _U64)
store_int = _storer(types.int32, ir.IntType(32))
store_float = _storer(types.float64, ir.DoubleType())
load_int = _loader(types.int32, ir.IntType(32))
load_float = _loader(types.float64, ir.DoubleType())
load_long = _loader(types.int64, _I64)
store_long = _storer(types.int64, _I64)


@intrinsic
def trailing_zeros(typingctx, value):
    """Number of zero bits below the lowest one; 64 for zero."""

    def generate(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@intrinsic
def leading_zeros(typingctx, value):
    """Number of zero bits above the highest one; 64 for zero."""

    def generate(context, builder, signature, args):
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@intrinsic
def opaque(typingctx, value):
    """Same value, hidden from the optimiser of the compiler."""

    def generate(context, builder, signature, args):
        kind = ir.FunctionType(_I64, [_I64])
        return builder.asm(kind, "", "=r,0", [args[0]], True)

    return types.int64(types.int64), generate


@intrinsic
def multiply_high(typingctx, a, b):
    """Upper 64 bits of the 128-bit product."""

    def generate(context, builder, signature, args):
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), _U64)

    return types.uint64(types.uint64, types.uint64), generate


@intrinsic
def float_bits(typingctx, value):
    """Bit pattern of a double."""

    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], _U64)

    return types.uint64(types.float64), generate


@intrinsic
def bits_float(typingctx, bits):
    """Double with this bit pattern."""

    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.uint64), generate
