"""The description of the API is true: the checked-in file is the server's own, and answers are as it says, whatever is
sent.

Schemathesis makes the requests from the description: such as fit it, and such as break it in every place. They go
through the whole application, over ASGI.
"""

import os
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from fastapi import FastAPI
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import ignored_auth, negative_data_rejection, positive_data_acceptance
from starlette.types import Receive, Scope, Send

from serving.app import create_app
from serving.openapi import document
from tests.fakes import NOW
from tests.serving.fakes import FakeService
from tests.serving.test_http_captions import PHOTO, b64
from trendrag.settings import ImageSettings, LimitSettings, ServerSettings, Settings

CHECKED_IN = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
EXAMPLES = 15
"""Of each operation, beside those that try each rule of the description one by one."""


LENIENT = {"GET /api/v1/feedback/export"}
"""Takes seconds since 1970 for a time as well, and does not say so."""

NO_FAULTS = {501, 503}
"""Server errors that are right answers: what can't be done here, and what can't be done now."""


def test_the_checked_in_description_is_the_servers_own() -> None:
    assert CHECKED_IN.read_text("utf-8") == document(), "run: make openapi"


class Application:
    """Stands for the application where tests are collected; made when the first of them runs."""

    made: FastAPI

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.made(scope, receive, send)


SCHEMA = schemathesis.openapi.from_path(CHECKED_IN)
SCHEMA.config.update(base_url="http://testserver")
# Too much text in a form is refused as that, whatever else is wrong with it.
SCHEMA.config.checks.negative_data_rejection.expected_statuses = [
    *SCHEMA.config.checks.negative_data_rejection.expected_statuses,
    "413",
]
if os.environ.get("CI"):  # see tests/conftest.py; Schemathesis has a seed of its own
    SCHEMA.config.seed = 1
SCHEMA.app = Application()


@pytest.fixture(scope="module", autouse=True)
def application(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("var"),
        image=ImageSettings(max_bytes=300_000, max_pixels=4_000_000),
        server=ServerSettings(hosts=("testserver",), keys="off"),
        limits=LimitSettings(requests_per_minute=0, captions_per_day=0, concurrent=0),
    )
    SCHEMA.app.made = create_app(settings, FakeService().open, lambda: NOW)


def as_described(case: schemathesis.Case[Any], *unchecked: Any) -> None:
    """Fails for an answer that the description does not have, or that is none of ours to give."""
    # What fits the description may still be refused: that text is an image, no schema can say. And nobody is asked for
    # a key here; whom keys let in is for test_http_callers.py.
    unchecked = (positive_data_acceptance, ignored_auth, not_a_server_error, *unchecked)
    answer = case.call_and_validate(excluded_checks=list(unchecked))
    assert answer.status_code < 500 or answer.status_code in NO_FAULTS, answer.text


@SCHEMA.parametrize()
@hypothesis.settings(max_examples=EXAMPLES, suppress_health_check=list(hypothesis.HealthCheck))
def test_answers_are_as_described(case: schemathesis.Case[Any]) -> None:
    as_described(case, *([negative_data_rejection] if case.operation.label in LENIENT else []))


@SCHEMA.include(method="POST").parametrize()
@hypothesis.settings(max_examples=EXAMPLES, suppress_health_check=list(hypothesis.HealthCheck))
def test_answers_are_as_described_with_a_real_photo(case: schemathesis.Case[Any]) -> None:
    body: Any = case.body
    if isinstance(body, dict) and isinstance(body.get("image"), str):
        case.body = {name: value for name, value in body.items() if name != "image_url"} | {"image": b64(PHOTO)}
    as_described(case, negative_data_rejection)  # the photo may have mended what was wrong
