"""Names what is in a photo with EfficientNet-Lite2, on the CPU and without PyTorch.

It knows the 1000 classes of ImageNet and no others: good on animals, food, vehicles and things, weak on people and
scenes. So it says little: only words whose probability is high, and nothing where nothing is sure.
"""

import asyncio
import io
import json
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from serving.models.tagger_graph import CLASSES, SIZE, graph_file
from serving.models.tagger_words import plain_words
from trendrag.errors import InvalidImage, WeightsError
from trendrag.ports import Description
from trendrag.types import PreparedImage
from trendrag.weights import REGISTRY, path

WEIGHTS = ("efficientnet-lite2", "imagenet-names")

CROP_PADDING = 32
"""Pixels (at the model's size) that the original's centre crop leaves out, half of them on each side."""

SURE = 0.5
"""Probability from which a word is taken for what the photo shows."""

BESIDE = 0.15
"""Probability from which another word may stand beside a sure one."""

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Tag:
    """A word for the photo, and the sum of the probabilities of its classes, in [0, 1]."""

    name: str
    probability: float


class Tagger:
    """Loads on first use, in a thread. Safe to share between tasks and threads.

    Raises:
        WeightsError: at the first use, where weights are missing or damaged.
    """

    def __init__(self, models_dir: Path, *, threads: int = 2) -> None:
        self._models_dir = models_dir
        self._threads = threads
        self._lock = threading.Lock()
        self._session: onnxruntime.InferenceSession | None = None
        self._words: tuple[str, ...] = ()

    async def tags(self, image: PreparedImage, k: int = 5) -> list[Tag]:
        """The k most probable words, best first."""
        return await asyncio.to_thread(self._tags, image.data, k)

    def logits(self, data: bytes) -> F32:
        """The network's raw answer for an encoded image: float32 (1000,)."""
        (answer,) = self._load().run(None, {"image": pixels(data)})
        return np.asarray(answer, np.float32).reshape(CLASSES)

    def _tags(self, data: bytes, k: int) -> list[Tag]:
        probabilities = softmax(self.logits(data))
        sums: dict[str, float] = {}
        for word, probability in zip(self._words, probabilities.tolist(), strict=True):
            sums[word] = sums.get(word, 0.0) + probability
        best = sorted(sums.items(), key=lambda item: -item[1])[:k]
        return [Tag(word, min(probability, 1.0)) for word, probability in best]

    def _load(self) -> onnxruntime.InferenceSession:
        with self._lock:
            if self._session is None:
                weights, names = (path(name, self._models_dir) for name in WEIGHTS)
                graph = graph_file(weights, REGISTRY[WEIGHTS[0]].sha256)
                self._words = plain_words(read_labels(names))
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = self._threads
                options.inter_op_num_threads = 1
                options.log_severity_level = 3  # errors only
                self._session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
            return self._session


class TagDescriber:
    """``trendrag.ports.Describer``: a line such as "espresso, cup", empty where nothing is sure."""

    always = True

    def __init__(self, tagger: Tagger) -> None:
        self._tagger = tagger

    async def describe(self, image: PreparedImage) -> Description:
        return Description(describe_tags(await self._tagger.tags(image)))


def describe_tags(tags: list[Tag]) -> str:
    """The sure words of the tags (best first), on one line."""
    if not tags or tags[0].probability < SURE:
        return ""
    return ", ".join([tags[0].name, *(tag.name for tag in tags[1:3] if tag.probability >= BESIDE)])


def read_labels(names: Path) -> list[str]:
    """The names of the 1000 classes in the order of their classes."""
    try:
        labels = json.loads(names.read_text("utf-8"))
        return [str(labels[number]) for number in range(CLASSES)]
    except (ValueError, LookupError, TypeError) as error:
        raise WeightsError(f"{names.name} is damaged. Run: trendrag models fetch --verify") from error


def pixels(data: bytes) -> F32:
    """An encoded image as the network takes it: float32 (1, 3, 260, 260), RGB, (x-127)/128.

    A centred square of the shorter side, less the original's border, resized with a bicubic filter, as the
    EfficientNet authors evaluate.

    Raises:
        InvalidImage: the bytes can't be decoded.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            rgb = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidImage("The image can't be decoded.") from error
    side = min(rgb.size) * SIZE / (SIZE + CROP_PADDING)
    left, top = (rgb.width - side) / 2, (rgb.height - side) / 2
    square = rgb.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    values = (np.asarray(square, np.float32) - 127) / 128
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def softmax(logits: F32) -> F32:
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum(), np.float32)
