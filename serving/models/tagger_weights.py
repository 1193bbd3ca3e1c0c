"""Reads a PyTorch weights file of the old format into numpy, without PyTorch and without running anything in it.

The old format (before PyTorch 1.6) is five pickles (magic number, protocol version, system information, the state
dict, the keys of its storages), followed by each storage: its length as int64, then its elements.
What the arrays mean is left to ``tagger_graph``.
"""

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from trendrag.errors import WeightsError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001

Array = npt.NDArray[np.float32] | npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _StorageType:
    dtype: str


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: str
    length: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    """Where a tensor lies in its storage, in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _tensor(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


_ALLOWED: Mapping[tuple[str, str], object] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch", "FloatStorage"): _StorageType("<f4"),
    ("torch", "LongStorage"): _StorageType("<i8"),
}


class _Unpickler(pickle.Unpickler):
    """Knows the four names that a state dict needs. Any other name, so any other callable, ends the reading."""

    def find_class(self, module_name: str, global_name: str, /) -> object:
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            raise WeightsError(
                f"This weights file asks for {module_name}.{global_name}, which weights don't need; it was not opened."
            ) from None

    def persistent_load(self, pid: object, /) -> _Storage:
        match pid:
            case ("storage", _StorageType(dtype), str(key), str(), int(length), None) if length >= 0:
                return _Storage(key, dtype, length)
        raise WeightsError("This weights file refers to storages in a way that is not known; it was not opened.")


def read_state_dict(file: Path) -> dict[str, Array]:
    """The arrays of a state dict by name: float32, or int64 for counters.

    Raises:
        WeightsError: not such a file, damaged, or asking for more than arrays.
    """
    try:
        with file.open("rb") as stream:
            return _read(stream, file.stat().st_size)
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        raise WeightsError(f"{file.name} is not a weights file that can be read: {error}") from error


def _read(stream: BinaryIO, size: int) -> dict[str, Array]:
    magic, protocol, _system, tensors, keys = (_load(stream) for _ in range(5))
    if magic != _MAGIC or protocol != _PROTOCOL:
        raise WeightsError("not a PyTorch file of the old format")
    if not isinstance(tensors, dict) or not all(isinstance(tensor, _Tensor) for tensor in tensors.values()):
        raise WeightsError("the weights file holds something else than tensors")
    if not isinstance(keys, list):
        raise WeightsError("the weights file lists no storages")
    known = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    storages: dict[str, Array] = {}
    for key in keys:
        storage = known[key]
        length = int.from_bytes(stream.read(8), "little", signed=True)
        dtype = np.dtype(storage.dtype)
        if length != storage.length or length * dtype.itemsize > size - stream.tell():
            raise WeightsError("the weights file ends too early")
        storages[key] = np.frombuffer(stream.read(length * dtype.itemsize), dtype)
    return {name: _view(tensor, storages[tensor.storage.key]) for name, tensor in tensors.items()}


def _load(stream: BinaryIO) -> object:
    return _Unpickler(stream).load()


def _view(tensor: _Tensor, storage: Array) -> Array:
    """The tensor as an array of its own. ``as_strided`` checks nothing, so that the bounds are checked here."""
    if len(tensor.shape) != len(tensor.strides) or min((tensor.offset, *tensor.shape, *tensor.strides), default=0) < 0:
        raise WeightsError("the weights file holds a tensor of an impossible shape")
    last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    if 0 in tensor.shape or last >= len(storage):
        raise WeightsError("the weights file holds a tensor that reaches beyond its storage")
    strides = [stride * storage.itemsize for stride in tensor.strides]
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides))
