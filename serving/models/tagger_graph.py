"""EfficientNet-Lite2 as an ONNX graph, built from the arrays of its PyTorch weights.

Architecture: Tan & Le 2019 (arXiv 1905.11946), table 1, in the "Lite" variant: ReLU6 for swish, no squeeze-and-
excitation, stem and head not scaled; width x1.1 and depth x1.2 for Lite2. Batch normalisation is folded into the
convolution before it: w' = w*g/sqrt(v+eps), b' = beta - m*g/sqrt(v+eps).

The graph is written once beside the weights. Its name holds the weights' checksum and this module's version, so that a
graph of other weights is never used.
"""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from serving.models.tagger_weights import Array, read_state_dict
from trendrag.errors import WeightsError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

SIZE = 260
"""Side of the square input, pixels."""

CLASSES = 1000
_STAGES = ((1, 1), (3, 2), (3, 2), (4, 2), (4, 1), (5, 2), (1, 1))  # (blocks, stride of the first)
_EPSILON = 1e-3
_VERSION = 1
_OPSET = 17

F32 = npt.NDArray[np.float32]


def graph_file(weights: Path, sha256: str) -> Path:
    """The cached graph of the weights, made now if it isn't there.

    Raises:
        WeightsError: the weights do not match ``sha256``, can't be read, or are of another network.
    """
    file = weights.with_name(f"{weights.stem}-{sha256[:16]}-v{_VERSION}.onnx")
    if file.is_file():
        return file
    with weights.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
            raise WeightsError(f"{weights.name} does not match its checksum. Run: trendrag models fetch --verify")
    try:
        data = build(read_state_dict(weights)).SerializeToString()
    except KeyError as error:
        raise WeightsError(f"{weights.name} is not EfficientNet-Lite2: it holds no {error}") from error
    descriptor, temporary = tempfile.mkstemp(prefix=".graph-", dir=weights.parent)
    try:
        with os.fdopen(descriptor, "wb") as sink:
            sink.write(data)
            sink.flush()
            os.fsync(sink.fileno())
        os.replace(temporary, file)  # noqa: PTH105  os.replace is the atomic one, by name
    finally:
        Path(temporary).unlink(missing_ok=True)
    return file


def build(arrays: Mapping[str, Array]) -> "ModelProto":
    """Input ``image``: float32 (1, 3, 260, 260), RGB, (x-127)/128. Output ``logits``: float32 (1, 1000).

    Raises:
        KeyError: an array of the network is missing.
    """
    # Costs 0.2 s, and is needed only once per machine.
    from onnx import TensorProto, checker, helper  # noqa: PLC0415

    graph = _Graph(arrays)
    x = graph.conv("image", "_conv_stem", "_bn0", stride=2, relu=True)
    block = 0
    for count, first_stride in _STAGES:
        for position in range(count):
            x = graph.block(x, f"_blocks.{block}", first_stride if position == 0 else 1, skip=position > 0)
            block += 1
    x = graph.conv(x, "_conv_head", "_bn1", stride=1, relu=True)
    x = graph.add("GlobalAveragePool", [x])
    x = graph.add("Flatten", [x])
    weight, bias = graph.keep("fc.w", arrays["_fc.weight"]), graph.keep("fc.b", arrays["_fc.bias"])
    graph.add("Gemm", [x, weight, bias], output="logits", transB=1)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "efficientnet-lite2",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=8,
    )
    checker.check_model(model)
    return model


class _Graph:
    """Nodes and constants in the order they are added."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = arrays
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._zero = self.keep("zero", np.float32(0))
        self._six = self.keep("six", np.float32(6))

    def keep(self, name: str, array: Array | np.float32) -> str:
        from onnx import numpy_helper  # noqa: PLC0415  see build

        self.constants.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name

    def add(self, operator: str, inputs: list[str], output: str = "", **attributes: int | str | list[int]) -> str:
        from onnx import helper  # noqa: PLC0415  see build

        output = output or f"x{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], None, None, None, None, **attributes))
        return output

    def conv(self, x: str, conv: str, norm: str, *, stride: int, relu: bool, depthwise: bool = False) -> str:
        """Convolution with TensorFlow's SAME padding, and the normalisation after it."""
        weight = np.asarray(self._arrays[f"{conv}.weight"], np.float64)  # (out, in, k, k)
        scale = self._arrays[f"{norm}.weight"] / np.sqrt(self._arrays[f"{norm}.running_var"] + np.float64(_EPSILON))
        bias = self._arrays[f"{norm}.bias"] - self._arrays[f"{norm}.running_mean"] * scale
        folded = (weight * scale[:, None, None, None]).astype(np.float32)
        x = self.add(
            "Conv",
            [x, self.keep(f"{conv}.w", folded), self.keep(f"{conv}.b", bias.astype(np.float32))],
            strides=[stride, stride],
            group=len(weight) if depthwise else 1,
            auto_pad="SAME_UPPER",
        )
        return self.add("Clip", [x, self._zero, self._six]) if relu else x

    def block(self, x: str, name: str, stride: int, *, skip: bool) -> str:
        """Inverted bottleneck: expand (all but the first block), depthwise, project, and the way round it."""
        y = x
        if f"{name}._expand_conv.weight" in self._arrays:
            y = self.conv(y, f"{name}._expand_conv", f"{name}._bn0", stride=1, relu=True)
        y = self.conv(y, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride, relu=True, depthwise=True)
        y = self.conv(y, f"{name}._project_conv", f"{name}._bn2", stride=1, relu=False)
        return self.add("Add", [x, y]) if skip else y
