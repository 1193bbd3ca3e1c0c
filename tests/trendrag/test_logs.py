"""What comes out on stderr: whole lines, with the request they belong to, and nothing that must not be read there."""

import asyncio
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr, ValidationError

from trendrag.logs import MAX_CHARS, OURS, bound, set_up_logging, told
from trendrag.settings import IngestSettings, LogSettings, ModelSettings, Settings

SetUp = Callable[..., io.StringIO]
KEY = "sk-1234567890"
PASSWORD = "p@ss word"
SECRETS = Settings(
    model=ModelSettings(api_key=SecretStr(KEY)),
    ingest=IngestSettings(database_url=SecretStr("postgresql://trendrag:p%40ss%20word@db/trendrag")),
)


@pytest.fixture
def set_up() -> Iterator[SetUp]:
    root = logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in (*OURS, "uvicorn", "openai"))]
    levels, handlers = [logger.level for logger in loggers], root.handlers[:]
    for handler in handlers:  # else setting up would close pytest's
        root.removeHandler(handler)

    def start(**changes: Any) -> io.StringIO:
        stream = io.StringIO()
        set_up_logging(LogSettings(**changes), SECRETS, stream)
        return stream

    yield start
    logging.captureWarnings(False)
    root.handlers = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_an_object_with_what_is_bound_and_the_fields_of_its_record(set_up: SetUp) -> None:
    stream = set_up(format="json")
    with bound(job="j1"), bound(request_id="r1", trace_id="t1"):
        logging.getLogger("serving.http").info("%d trends", 3, extra={"fields": {"status": 200}})
    logging.getLogger("serving.http").info("after")
    first, second = lines(stream)
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "info",
        "logger": "serving.http",
        "message": "3 trends",
        "request_id": "r1",
        "trace_id": "t1",
        "status": 200,
    }
    assert "request_id" not in second


async def test_tasks_carry_the_request_that_began_them_and_no_other(set_up: SetUp) -> None:
    stream = set_up(format="json")

    async def work(number: int) -> None:
        await asyncio.sleep(0)
        logging.getLogger("serving").info("%d", number)

    async def request(number: int) -> None:
        with bound(request_id=str(number)):
            await asyncio.gather(*(asyncio.create_task(work(number)) for _ in range(3)))

    await asyncio.gather(*(request(number) for number in range(4)))
    assert all(line["request_id"] == line["message"] for line in lines(stream))
    assert len(lines(stream)) == 12


@pytest.mark.parametrize("form", ["json", "text"])
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(said=st.text(max_size=40))
def test_whatever_is_said_stays_one_line(set_up: SetUp, form: str, said: str) -> None:
    stream = set_up(format=form)
    logging.getLogger("serving").info("%s", said)
    assert len(stream.getvalue().splitlines()) == 1


def test_text_tells_the_request_and_the_failure(set_up: SetUp) -> None:
    stream = set_up()
    with bound(request_id="r1"):
        try:
            raise RuntimeError("the disk is full")
        except RuntimeError:
            logging.getLogger("ingest.x").exception("not\npublished")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith(r"ERROR ingest.x: not\npublished [request_id=r1]")
    assert rest[-1] == "RuntimeError: the disk is full"
    assert any("test_logs.py" in line for line in rest)


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("DEBUG", ["serving debug", "serving info", "uvicorn info", "openai warning", "uvicorn warning"]),
        ("info", ["serving info", "uvicorn info", "openai warning", "uvicorn warning"]),
        ("error", []),
    ],
)
def test_libraries_are_heard_from_warnings_on_whatever_they_ask_for(
    set_up: SetUp, level: str, heard: list[str]
) -> None:
    stream = set_up(level=level, format="json")
    if level != "error":
        logging.getLogger("openai").setLevel(logging.DEBUG)  # as OPENAI_LOG=debug does
    for at in ("debug", "info"):
        for name in ("serving", "openai", "uvicorn"):
            logging.getLogger(name).log(logging.getLevelNamesMapping()[at.upper()], "%s %s", name, at)
    for name in ("openai", "uvicorn"):
        logging.getLogger(name).warning("%s warning", name)
    assert [line["message"] for line in lines(stream)] == heard


def test_secret_settings_are_blotted_out_wherever_they_turn_up(set_up: SetUp) -> None:
    stream = set_up(format="json")
    log = logging.getLogger("serving")
    log.info("Bearer %s", KEY)
    log.info("login with %s failed", PASSWORD)
    try:
        raise ValueError(f"bad key {KEY}")
    except ValueError:
        log.exception("broke")
    logging.getLogger("httpx2").warning("sent %s", {"authorization": f"Bearer {KEY}"})
    assert KEY not in stream.getvalue()
    assert PASSWORD not in stream.getvalue()
    assert stream.getvalue().count("[secret]") == 4


def test_images_and_endless_messages_are_cut(set_up: SetUp) -> None:
    stream = set_up(format="json")
    logging.getLogger("openai").warning("sent %s", "data:image/jpeg;base64," + "QUJD" * 5_000)
    logging.getLogger("openai").warning("%s", "so it went on " * 5_000)
    image, endless = lines(stream)
    assert image["message"] == "sent data:image/jpeg;base64,[20000 characters]"
    assert len(endless["message"]) == MAX_CHARS


def test_a_refused_value_is_not_quoted() -> None:
    class Row(BaseModel):
        note: int

    note = "my first divorce"[::-1]  # backwards: a traceback quotes the source
    try:
        try:
            Row.model_validate({"note": note})
        except ValidationError as error:
            raise RuntimeError("can't read the row") from error
    except RuntimeError as error:
        said = told(error)
    assert note not in said
    assert "ValidationError: note int_parsing" in said
    assert said.endswith("RuntimeError: can't read the row")


def test_an_exception_tells_its_group_and_never_goes_round_in_circles() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    said = told(ExceptionGroup("both", [one, KeyError("k")]))
    assert "ExceptionGroup: both" in said
    assert "ValueError: one" in said
    assert "KeyError: 'k'" in said


def test_warnings_of_python_come_the_same_way(set_up: SetUp) -> None:
    stream = set_up(format="json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert [line["logger"] for line in lines(stream)] == ["py.warnings"]
