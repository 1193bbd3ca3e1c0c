"""The reader of PyTorch's old format: arrays come out, and nothing in a file is ever run."""

import os
import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from serving.models.tagger_weights import read_state_dict
from trendrag.errors import WeightsError

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class FloatStorage:
    def __init__(self, key: str, length: int) -> None:
        self.key, self.length = key, length


class Tensor:
    """Pickles as PyTorch's tensors do."""

    def __init__(self, storage: FloatStorage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        hooks: OrderedDict[str, Any] = OrderedDict()
        self.arguments = (storage, offset, shape, strides, False, hooks)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_tensor_v2, self.arguments


def _rebuild_tensor_v2(*arguments: object) -> object:
    return arguments


def load() -> None:
    """Stands for any other function of PyTorch's."""


@pytest.fixture(autouse=True)
def torch_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's names, so that pickles which refer to them can be written. It is not installed here."""
    torch, utils = ModuleType("torch"), ModuleType("torch._utils")
    for module, thing in ((torch, FloatStorage), (torch, load), (utils, _rebuild_tensor_v2)):
        monkeypatch.setattr(thing, "__module__", module.__name__)
        setattr(module, thing.__name__, thing)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


class Writer(pickle.Pickler):
    def persistent_id(self, obj: object) -> object:
        if isinstance(obj, FloatStorage):
            return ("storage", FloatStorage, obj.key, "cpu", obj.length, None)
        return None


def write(file: Path, tensors: object, storages: dict[str, np.ndarray[Any, Any]]) -> Path:
    with file.open("wb") as sink:
        for part in (MAGIC, PROTOCOL, {"little_endian": True}, tensors, list(storages)):
            Writer(sink, 2).dump(part)
        for values in storages.values():
            sink.write(len(values).to_bytes(8, "little") + values.tobytes())
    return file


def test_arrays_come_out_with_their_strides(tmp_path: Path) -> None:
    storage = FloatStorage("7", 6)
    tensors = OrderedDict(rows=Tensor(storage, 0, (2, 3), (3, 1)), columns=Tensor(storage, 1, (2, 2), (1, 2)))

    got = read_state_dict(write(tmp_path / "w.pth", tensors, {"7": np.arange(6, dtype="<f4")}))

    assert got["rows"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert got["columns"].tolist() == [[1, 3], [2, 4]]
    assert got["rows"].dtype == np.float32


class Bomb:
    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, (str(self.flag), 0o700)


def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    flag = tmp_path / "was run"
    file = write(tmp_path / "w.pth", OrderedDict(bomb=Bomb(flag)), {})

    with pytest.raises(WeightsError, match=r"asks for posix\.mkdir"):
        read_state_dict(file)
    assert not flag.exists()


@pytest.mark.parametrize("thing", [eval, getattr, os.system, load], ids=lambda thing: thing.__name__)
def test_no_name_but_those_of_arrays_is_known(tmp_path: Path, thing: object) -> None:
    with pytest.raises(WeightsError, match="asks for"):
        read_state_dict(write(tmp_path / "w.pth", OrderedDict(x=thing), {}))


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (7,), (1,)), (5, (2,), (1,)), (0, (2, 3), (6, 1)), (-1, (2,), (1,)), (0, (2,), (-1,)), (0, (2, 2), (1,))],
)
def test_a_tensor_beyond_its_storage_is_refused(
    tmp_path: Path, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    tensors = OrderedDict(x=Tensor(FloatStorage("7", 6), offset, shape, strides))

    with pytest.raises(WeightsError):
        read_state_dict(write(tmp_path / "w.pth", tensors, {"7": np.arange(6, dtype="<f4")}))


def test_a_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    tensors = OrderedDict(x=Tensor(FloatStorage("7", 6), 0, (6,), (1,)))
    file = write(tmp_path / "w.pth", tensors, {"7": np.arange(6, dtype="<f4")})
    whole = file.read_bytes()

    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(WeightsError):
            read_state_dict(file)
