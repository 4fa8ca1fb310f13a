"""The 34 element types of HLO, one row each.

NumPy has no 1-, 2- and 4-bit integers, no bfloat16 and no floats below 16 bits; `ml_dtypes` supplies
those. In memory an element of a sub-byte type takes a whole byte, as in `ml_dtypes`, except for `pred`,
which is NumPy's bool.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

from hloc.records import record

PREDICATE, SIGNED, UNSIGNED, FLOAT, COMPLEX, TOKEN_KIND, OPAQUE_KIND = (
    "predicate",
    "signed",
    "unsigned",
    "float",
    "complex",
    "token",
    "opaque",
)


@record
class DType:
    """One element type.

    `bits` is the width of a value (complex: both parts), `numpy` the NumPy dtype of an array of them
    (None for token and opaque), `exponent_bits` and `mantissa_bits` the fields of a float format.
    Instances are unique: compare them with `is`.
    """

    name: str
    kind: str
    bits: int
    numpy: np.dtype | None
    exponent_bits: int = 0
    mantissa_bits: int = 0

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def is_integer(self) -> bool:
        return self.kind is SIGNED or self.kind is UNSIGNED

    @property
    def is_signed(self) -> bool:
        return self.kind is SIGNED

    @property
    def is_unsigned(self) -> bool:
        return self.kind is UNSIGNED

    @property
    def is_float(self) -> bool:
        return self.kind is FLOAT

    @property
    def is_complex(self) -> bool:
        return self.kind is COMPLEX

    @property
    def is_array_element(self) -> bool:
        """Whether arrays of this type exist: everything but token and opaque."""
        return self.numpy is not None

    @property
    def itemsize(self) -> int:
        """Bytes that an element takes in memory (0 for token and opaque)."""
        return 0 if self.numpy is None else self.numpy.itemsize

    @property
    def is_subbyte(self) -> bool:
        """Whether a packed layout could hold several elements a byte (pred is always a byte)."""
        return self.bits < 8 and self.kind in (SIGNED, UNSIGNED, FLOAT)

    @property
    def real_part(self) -> DType:
        """The float type of a complex type's parts; any other type is its own."""
        return {"c64": F32, "c128": F64}.get(self.name, self)

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> str | tuple:
        return dtype_named, (self.name,)


def dtype_named(name: str) -> DType:
    """The type of that HLO name; KeyError if there is none."""
    return BY_NAME[name]


def dtype_of_numpy(dtype: np.dtype) -> DType:
    """The HLO type whose arrays NumPy holds with this dtype; KeyError if there is none."""
    return BY_NUMPY[np.dtype(dtype)]


def _integers(letter: str, kind: str) -> list[DType]:
    word = "uint" if kind is UNSIGNED else "int"
    narrow = [DType(f"{letter}{n}", kind, n, np.dtype(getattr(ml_dtypes, f"{word}{n}"))) for n in (1, 2, 4)]
    return narrow + [DType(f"{letter}{n}", kind, n, np.dtype(f"{word}{n}")) for n in (8, 16, 32, 64)]


def _float(name: str, numpy: object, bits: int, exponent: int, mantissa: int) -> DType:
    return DType(name, FLOAT, bits, np.dtype(numpy), exponent, mantissa)


PRED = DType("pred", PREDICATE, 1, np.dtype(bool))
S1, S2, S4, S8, S16, S32, S64 = _integers("s", SIGNED)
U1, U2, U4, U8, U16, U32, U64 = _integers("u", UNSIGNED)
F16 = _float("f16", np.float16, 16, 5, 10)
BF16 = _float("bf16", ml_dtypes.bfloat16, 16, 8, 7)
F32 = _float("f32", np.float32, 32, 8, 23)
F64 = _float("f64", np.float64, 64, 11, 52)
F8E5M2 = _float("f8e5m2", ml_dtypes.float8_e5m2, 8, 5, 2)
F8E4M3 = _float("f8e4m3", ml_dtypes.float8_e4m3, 8, 4, 3)
F8E4M3FN = _float("f8e4m3fn", ml_dtypes.float8_e4m3fn, 8, 4, 3)
F8E4M3B11FNUZ = _float("f8e4m3b11fnuz", ml_dtypes.float8_e4m3b11fnuz, 8, 4, 3)
F8E3M4 = _float("f8e3m4", ml_dtypes.float8_e3m4, 8, 3, 4)
F8E5M2FNUZ = _float("f8e5m2fnuz", ml_dtypes.float8_e5m2fnuz, 8, 5, 2)
F8E4M3FNUZ = _float("f8e4m3fnuz", ml_dtypes.float8_e4m3fnuz, 8, 4, 3)
F8E8M0FNU = _float("f8e8m0fnu", ml_dtypes.float8_e8m0fnu, 8, 8, 0)
F6E2M3FN = _float("f6e2m3fn", ml_dtypes.float6_e2m3fn, 6, 2, 3)
F6E3M2FN = _float("f6e3m2fn", ml_dtypes.float6_e3m2fn, 6, 3, 2)
F4E2M1FN = _float("f4e2m1fn", ml_dtypes.float4_e2m1fn, 4, 2, 1)
C64 = DType("c64", COMPLEX, 64, np.dtype(np.complex64), 8, 23)
C128 = DType("c128", COMPLEX, 128, np.dtype(np.complex128), 11, 52)
TOKEN = DType("token", TOKEN_KIND, 0, None)
OPAQUE = DType("opaque", OPAQUE_KIND, 0, None)

ALL: tuple[DType, ...] = (
    PRED,
    *(S1, S2, S4, S8, S16, S32, S64),
    *(U1, U2, U4, U8, U16, U32, U64),
    *(F16, BF16, F32, F64),
    *(F8E5M2, F8E4M3, F8E4M3FN, F8E4M3B11FNUZ, F8E3M4, F8E5M2FNUZ, F8E4M3FNUZ, F8E8M0FNU),
    *(F6E2M3FN, F6E3M2FN, F4E2M1FN),
    *(C64, C128, TOKEN, OPAQUE),
)
BY_NAME: dict[str, DType] = {dtype.name: dtype for dtype in ALL}
BY_NUMPY: dict[np.dtype, DType] = {dtype.numpy: dtype for dtype in ALL if dtype.numpy is not None}
