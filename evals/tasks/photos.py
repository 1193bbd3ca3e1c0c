"""Photos to be captioned or tagged, as three kinds of files hold them.

    JSON lines      id, image (a path from the file's folder, or from --images), and of these what the task needs:
                    note, references [captions by people], tags [gold tags; alternatives as "cup|mug"],
                    fits [the trends that an editor would accept, as they are called; [] says that none fits], batch
    COCO's JSON     images [{id, file_name}], annotations [{image_id, caption}]
    splits of       images [{filename, filepath, split, sentences [{raw}]}]; of these the images of one split: the form
    Karpathy and Li in which COCO's and Flickr30k's usual test sets are passed on

The paths come from outside: none may leave the folder of images.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from evals.labelled import Record, read_cases
from trendrag.errors import RequestError

OURS = Path(__file__).parent.parent / "cases" / "photos.jsonl"
OUR_IMAGES = Path(__file__).parent.parent.parent / "tests" / "photos"
MAX_CASES_BYTES = 512 * 2**20


class PhotoCase(Record):
    id: str = Field(min_length=1, max_length=150)
    image: str
    note: str | None = None
    references: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    fits: tuple[str, ...] | None = None
    batch: str | None = None


@dataclass(frozen=True, slots=True)
class Photos:
    """``by_id`` has the cases in their order, ``paths`` their images: files that are there. ``sha256`` is of the file
    of cases."""

    name: str
    sha256: str
    by_id: Mapping[str, PhotoCase]
    paths: Mapping[str, Path]

    @property
    def cases(self) -> tuple[PhotoCase, ...]:
        return tuple(self.by_id.values())


def read_photos(file: Path | None, images: Path | None, *, split: str = "test", limit: int | None = None) -> Photos:
    """The first ``limit`` cases of ``file``, in its order; ours where it is None.

    ``images`` is the folder of their pictures; where it is None, that of the file. ``split`` counts only in files that
    have splits.

    Raises:
        RequestError: the file or an image can't be read or is not of a form above; the message says which and what to
            do.
    """
    if file is None:
        file, images = OURS, images or OUR_IMAGES
        if not images.is_dir():
            raise RequestError(
                "The photos of our own cases are in the checkout (tests/photos), which is not here. Give photos of "
                "yours: --cases FILE --images FOLDER"
            )
    try:
        if file.stat().st_size > MAX_CASES_BYTES:
            raise RequestError(f"{file} is larger than {MAX_CASES_BYTES // 2**20} MiB: is it a file of cases?")
        data = file.read_bytes()
    except OSError as error:
        raise RequestError(f"{file} can't be read: {error.strerror}") from error
    cases = _from_json(data, file, split) if file.suffix == ".json" else read_cases(file, PhotoCase)
    chosen = tuple(cases[:limit])
    if not chosen:
        raise RequestError(f"{file} holds no photo" + (f" of the split {split!r}" if file.suffix == ".json" else ""))
    folder = (images or file.parent).resolve()
    paths: dict[str, Path] = {}
    for case in chosen:
        if case.id in paths:
            raise RequestError(f"{file}: the id {case.id} is there twice")
        paths[case.id] = _within(folder, case.image, file)
    return Photos(file.name, hashlib.sha256(data).hexdigest(), {case.id: case for case in chosen}, paths)


def needing(photos: Photos, what: str, has: Iterable[bool]) -> None:
    """
    Raises:
        RequestError: one of the cases lacks what the task can't do without.
    """
    lacking = [case.id for case, there in zip(photos.cases, has, strict=True) if not there]
    if lacking:
        more = f" and {len(lacking) - 1} others" if len(lacking) > 1 else ""
        raise RequestError(f"{photos.name}: {lacking[0]}{more} have no {what}, which this task needs")


def _within(folder: Path, name: str, file: Path) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise RequestError(f"{file}: {name} lies outside of the folder of images, {folder}")
    if not path.is_file():
        raise RequestError(f"{path} is not there; say where the images of {file.name} are: --images FOLDER")
    return path


def _from_json(data: bytes, file: Path, split: str) -> list[PhotoCase]:
    try:
        told = json.loads(data)
        cases = _coco(told) if "annotations" in told else _splits(told, split)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise RequestError(f"{file}: {': '.join([*map(str, fault['loc']), fault['msg']])}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RequestError(
            f"{file} is neither in COCO's form (images, annotations) nor one of Karpathy's splits (images with "
            f"sentences), or is damaged: {type(error).__name__}"
        ) from error
    return cases


def _coco(told: dict[str, Any]) -> list[PhotoCase]:
    captions: defaultdict[object, list[str]] = defaultdict(list)
    for each in told["annotations"]:
        captions[each["image_id"]].append(_line(each["caption"]))
    return [
        PhotoCase(id=str(each["id"]), image=each["file_name"], references=tuple(captions[each["id"]]))
        for each in told["images"]
        if each["id"] in captions
    ]


def _splits(told: dict[str, Any], split: str) -> list[PhotoCase]:
    return [
        PhotoCase(
            id=each["filename"],
            image=f"{each['filepath']}/{each['filename']}" if each.get("filepath") else each["filename"],
            references=tuple(_line(sentence["raw"]) for sentence in each["sentences"]),
        )
        for each in told["images"]
        if each["split"] == split
    ]


def _line(text: str) -> str:
    return " ".join(text.split())
