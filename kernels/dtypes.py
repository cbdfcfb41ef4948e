"""Element types and reduction operations: their names, sizes and NumPy storage. Imports NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

OPS = ("sum", "prod", "min", "max", "avg")


@dataclass(frozen=True)
class DType:
    """An element type.

    name: busbw's name, "float32"
    nccl: the name nccl-tests prints and takes after -d, "float"
    itemsize: bytes an element
    storage: the NumPy dtype that holds it. NumPy has no bfloat16: it is held as its uint16 bit pattern.
    kind: "f" for floating point, "i" for signed, "u" for unsigned integers
    """

    name: str
    nccl: str
    itemsize: int
    storage: np.dtype
    kind: str

    @property
    def is_float(self) -> bool:
        return self.kind == "f"


def _table() -> dict[str, DType]:
    rows = [
        ("float64", "double", "float64", "f"),
        ("float32", "float", "float32", "f"),
        ("float16", "half", "float16", "f"),
        ("bfloat16", "bfloat16", "uint16", "f"),
        ("int8", "int8", "int8", "i"),
        ("uint8", "uint8", "uint8", "u"),
        ("int32", "int32", "int32", "i"),
        ("int64", "int64", "int64", "i"),
        ("uint64", "uint64", "uint64", "u"),
    ]
    return {
        name: DType(name, nccl, np.dtype(storage).itemsize, np.dtype(storage), kind)
        for name, nccl, storage, kind in rows
    }


DTYPES: dict[str, DType] = _table()
_BY_NCCL_NAME = {dtype.nccl: dtype for dtype in DTYPES.values()}

# GPU backends have float8 too, held as its uint8 bit pattern.
DEVICE_DTYPES: dict[str, DType] = {
    **DTYPES,
    "float8_e4m3": DType("float8_e4m3", "f8e4m3", 1, np.dtype(np.uint8), "f"),
    "float8_e5m2": DType("float8_e5m2", "f8e5m2", 1, np.dtype(np.uint8), "f"),
}


def find_device_dtype(name: str | DType) -> DType:
    """As `find_dtype`, and float8_e4m3 and float8_e5m2 (or f8e4m3 and f8e5m2) as well."""
    for dtype in DEVICE_DTYPES.values():
        if name in (dtype.name, dtype.nccl):
            return dtype
    return find_dtype(name)


def find_dtype(name: str | DType) -> DType:
    """The DType of a busbw name ("float32") or an nccl-tests name ("float"). Raises ValueError for any other."""
    if isinstance(name, DType):
        return name
    found = DTYPES.get(name) or _BY_NCCL_NAME.get(name)
    if found is None:
        accepted = ", ".join(d.name if d.name == d.nccl else f"{d.name} (or {d.nccl})" for d in DTYPES.values())
        raise ValueError(f"dtype {name!r} is not known; accepted: {accepted}")
    return found


def find_op(name: str) -> str:
    """`name` itself if it is a reduction operation, else ValueError."""
    if name not in OPS:
        raise ValueError(f"op {name!r} is not known; accepted: {', '.join(OPS)}")
    return name


def storage_dtype(array: np.ndarray) -> DType:
    """The DType an array's NumPy dtype stands for. Raises ValueError where it is none, or ambiguous (uint16)."""
    for dtype in DTYPES.values():
        if dtype.storage == array.dtype and dtype.name != "bfloat16":
            return dtype
    if array.dtype == DTYPES["bfloat16"].storage:
        raise ValueError('a uint16 array holds bfloat16 bit patterns only if you say so: pass dtype="bfloat16"')
    raise ValueError(f"arrays of {array.dtype} are not reduced; accepted: {', '.join(DTYPES)}")


def bfloat16_from_float32(values: np.ndarray) -> np.ndarray:
    """float32 values of any shape -> uint16 bfloat16 bit patterns, rounded to nearest even; NaN stays a quiet NaN."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    quiet = (bits >> np.uint32(16)) | np.uint32(0x40)
    is_nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.where(is_nan, quiet, rounded).astype(np.uint16).reshape(np.shape(values))


def float32_from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """uint16 bfloat16 bit patterns of any shape -> the same values as float32, exactly."""
    wide = np.ascontiguousarray(bits, dtype=np.uint16).astype(np.uint32) << np.uint32(16)
    return wide.view(np.float32).reshape(np.shape(bits))
