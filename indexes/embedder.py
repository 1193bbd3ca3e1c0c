"""Turns text into vectors. The default is all-MiniLM-L6-v2 as int8 ONNX, run by onnxruntime: no torch."""

import hashlib
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trendrag.errors import WeightsError
from trendrag.weights import path

Vectors = npt.NDArray[np.float32]

MAX_TOKENS = 256
"""What the model was trained to read; longer text is cut."""
_BATCH = 16


class Embedder(Protocol):
    """``name`` and ``sha256`` identify the vectors: a snapshot made with others is refused."""

    @property
    def name(self) -> str: ...

    @property
    def sha256(self) -> str: ...

    @property
    def dim(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """float32 (len(texts), dim), rows L2-normalised. Equal texts give equal rows, whatever stands beside them."""


class MiniLMEmbedder:
    """all-MiniLM-L6-v2 (sentence-transformers, Apache-2.0): mean over token states, then L2 normalisation.

    Only texts of equally many tokens share a batch. The int8 model scales its activations by what it is given, padding
    too, so that among longer texts a text's vector would be another (by up to 0.02 in cosine). Without padding it is
    not, and a batch takes half to two thirds of the time that its texts take one by one (some 3 ms each).

    Raises:
        WeightsError: the model files are not there; the message names the command that fetches them.
    """

    name = "all-MiniLM-L6-v2-int8"
    dim = 384

    def __init__(self, model_file: Path, tokenizer_file: Path) -> None:
        # Imported here: the module is cheap to import where only the port is needed.
        import onnxruntime  # noqa: PLC0415
        from tokenizers import Tokenizer  # noqa: PLC0415

        model = model_file.read_bytes()
        self.sha256 = hashlib.sha256(model).hexdigest()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a text is too short to share out; requests run beside each other
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        except Exception as error:  # both libraries raise bare Exception subclasses from native code
            raise WeightsError(f"The embedding model can't be loaded ({error}). Run: trendrag models fetch") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        tokens = [self._tokenizer.encode(text).ids for text in texts]
        by_length = sorted(range(len(texts)), key=lambda row: len(tokens[row]))
        for _, same in groupby(by_length, key=lambda row: len(tokens[row])):
            rows = list(same)
            for start in range(0, len(rows), _BATCH):
                part = rows[start : start + _BATCH]
                ids = np.array([tokens[row] for row in part], dtype=np.int64)  # (texts, tokens)
                (states,) = self._session.run(
                    None, {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
                )  # (texts, tokens, dim)
                mean = states.mean(axis=1)
                vectors[part] = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
        return vectors


def open_embedder(models_dir: Path) -> MiniLMEmbedder:
    """The default embedder, from weights that `trendrag models fetch` put there."""
    return MiniLMEmbedder(path("minilm", models_dir), path("minilm-tokenizer", models_dir))
