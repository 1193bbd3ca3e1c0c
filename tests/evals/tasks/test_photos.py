import json
from pathlib import Path

import pytest

from evals.tasks.photos import PhotoCase, read_photos
from evals.tasks.tagging import TaggingTask
from trendrag.errors import RequestError

COFFEE = Path(__file__).parents[2] / "photos" / "coffee.jpg"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "1.jpg").write_bytes(COFFEE.read_bytes())
    (tmp_path / "2.jpg").write_bytes(COFFEE.read_bytes())
    return tmp_path


def written(folder: Path, name: str, told: object) -> Path:
    path = folder / name
    path.write_text(told if isinstance(told, str) else json.dumps(told), "utf-8")
    return path


def test_our_own_cases_have_all_that_the_tasks_need() -> None:
    photos = read_photos(None, None)
    assert len(photos.cases) == 8
    assert all(len(case.references) > 1 and case.tags and case.fits is not None and case.note for case in photos.cases)


def test_coco_gives_each_image_its_captions(folder: Path) -> None:
    told = {
        "images": [{"id": 7, "file_name": "val/1.jpg"}, {"id": 8, "file_name": "2.jpg"}, {"id": 9, "file_name": "no"}],
        "annotations": [
            {"image_id": 8, "caption": "A cup.\n"},
            {"image_id": 7, "caption": "One."},
            {"image_id": 7, "caption": "Two."},
        ],
    }
    photos = read_photos(written(folder, "coco.json", told), None)
    assert [(case.id, case.references) for case in photos.cases] == [("7", ("One.", "Two.")), ("8", ("A cup.",))]
    assert photos.paths["7"] == folder / "val" / "1.jpg"


def test_of_splits_one_is_read(folder: Path) -> None:
    told = {
        "images": [
            {"filename": "1.jpg", "filepath": "val", "split": "test", "sentences": [{"raw": "A cup of coffee."}]},
            {"filename": "2.jpg", "split": "train", "sentences": [{"raw": "Another."}]},
        ]
    }
    path = written(folder, "dataset.json", told)
    assert [case.references for case in read_photos(path, None).cases] == [("A cup of coffee.",)]
    assert [case.id for case in read_photos(path, None, split="train").cases] == ["2.jpg"]
    with pytest.raises(RequestError, match="no photo of the split 'val'"):
        read_photos(path, None, split="val")


@pytest.mark.parametrize("image", ["../secret.jpg", "/etc/hostname", "val/../../secret.jpg"])
def test_no_path_leaves_the_folder_of_images(folder: Path, image: str) -> None:
    (folder.parent / "secret.jpg").write_bytes(COFFEE.read_bytes())
    path = written(folder, "cases.jsonl", json.dumps({"id": "1", "image": image}))
    with pytest.raises(RequestError, match="outside of the folder"):
        read_photos(path, None)


@pytest.mark.parametrize(
    ("name", "told", "why"),
    [
        ("cases.jsonl", '{"id": "1", "image": "gone.jpg"}', "--images FOLDER"),
        ("cases.jsonl", '{"id": "1", "image": "2.jpg"}\n' * 2, "1 is there twice"),
        ("cases.jsonl", '{"id": "1"}', "line 1 is not a case: image"),
        ("cases.jsonl", "", "holds no case"),
        ("coco.json", "[]", "neither in COCO's form"),
        ("coco.json", '{"images": 3, "annotations": []}', "neither in COCO's form"),
        ("coco.json", "{", "neither in COCO's form"),
        (
            "coco.json",
            {"images": [{"id": 1, "file_name": 2}], "annotations": [{"image_id": 1, "caption": "x"}]},
            "image",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said(folder: Path, name: str, told: object, why: str) -> None:
    with pytest.raises(RequestError, match=why):
        read_photos(written(folder, name, told), None)


def test_a_task_says_which_photo_lacks_what_it_needs(folder: Path) -> None:
    path = written(folder, "cases.jsonl", json.dumps({"id": "1", "image": "2.jpg"}))
    with pytest.raises(RequestError, match="1 have no tags"):
        TaggingTask(read_photos(path, None))
    assert PhotoCase(id="1", image="x").fits is None  # nothing is said of it, which is not "none fits"
