"""Inner products of a few vectors with many, by faiss's kernel: one thread, and each vector is read from memory once.

numpy's would start BLAS's threads for each query. On cores that others use too these wait for one another, 20 to 60 ms
at times for what one thread does in one or two.
"""

from typing import Any

import faiss
import numpy as np

from indexes.embedder import Vectors

_KERNELS: Any = faiss  # whose types don't name these
_BLOCK = 512
"""Vectors compared with all queries before the next ones are: few enough to stay in a core's cache."""


def inner_products(queries: Vectors, vectors: Vectors) -> Vectors:
    """float32 (queries, vectors), of float32 (queries, dim) and (vectors, dim)."""
    queries, vectors = np.ascontiguousarray(queries, np.float32), np.ascontiguousarray(vectors, np.float32)
    found = np.empty((len(queries), len(vectors)), dtype=np.float32)
    block = _BLOCK if len(queries) > 1 else max(len(vectors), 1)
    for start in range(0, len(vectors), block):
        part = vectors[start : start + block]
        those = faiss.swig_ptr(part)
        for row, query in enumerate(queries):
            _KERNELS.fvec_inner_products_ny(
                faiss.swig_ptr(found[row, start : start + len(part)]), faiss.swig_ptr(query), those, *part.shape[::-1]
            )
    return found
