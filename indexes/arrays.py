"""Arrays one after the other, each in numpy's own format, read without believing what they say of themselves."""

import io
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt


def packed_arrays(arrays: Iterable[npt.NDArray[Any]]) -> bytes:
    packed = io.BytesIO()
    for array in arrays:
        np.lib.format.write_array(packed, array, allow_pickle=False)
    return packed.getvalue()


def arrays_in(data: bytes, *kinds: tuple[npt.DTypeLike, int]) -> list[npt.NDArray[Any]]:
    """The arrays of ``data``, of these types and numbers of dimensions, and nothing after them.

    Raises:
        Exception: they are others; numpy raises all sorts on what it did not write.
    """
    file = io.BytesIO(data)
    found = []
    for kind, dimensions in kinds:
        np.lib.format.read_magic(file)
        shape, by_column, dtype = np.lib.format.read_array_header_1_0(file)
        start, size = file.tell(), math.prod(shape) * dtype.itemsize
        # What it says of itself is checked before any memory is taken for it.
        if dtype != kind or len(shape) != dimensions or min(shape) < 0 or size > len(data) - start:
            raise ValueError("not the arrays that are meant")
        given: npt.NDArray[Any] = np.ndarray(shape, dtype, data, start, order="F" if by_column else "C")
        found.append(given.copy("K"))  # aligned, and without the rest of the file
        file.seek(size, io.SEEK_CUR)
    if file.tell() != len(data):
        raise ValueError("there is more than the arrays that are meant")
    return found
