"""How the built page is given out. What the page does is for tests/web."""

import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from serving.app import create_app
from tests.fakes import NOW
from tests.serving.fakes import FakeService
from tests.serving.pages import SCRIPT, TINY_PAGE
from trendrag.settings import Settings


def test_the_hashed_files_are_kept_for_good_and_the_index_is_asked_for_again(client: TestClient) -> None:
    index, script = client.get("/"), client.get(SCRIPT)
    assert index.headers["content-type"] == "text/html; charset=utf-8"
    assert index.text == (TINY_PAGE / "index.html").read_text("utf-8")
    assert "no-cache" in index.headers["cache-control"]
    assert "immutable" not in index.headers["cache-control"]
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert client.get("/icon.svg").headers["content-type"] == "image/svg+xml"


@pytest.mark.parametrize("path", ["/", SCRIPT])
def test_what_the_browser_has_is_not_sent_again(client: TestClient, path: str) -> None:
    first = client.get(path)
    again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cache-control"] == first.headers["cache-control"]
    other = client.get(path, headers={"If-None-Match": first.headers["etag"], "Accept-Encoding": "identity"})
    assert other.status_code == 200, "the tag is of the file as it was encoded"


def test_files_are_sent_small_to_whom_takes_gzip(client: TestClient) -> None:
    packed = client.get(SCRIPT, headers={"Accept-Encoding": "br, gzip"})
    plain = client.get(SCRIPT, headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])
    assert packed.content == plain.content == (TINY_PAGE / SCRIPT[1:]).read_bytes()
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize("path", ["/", SCRIPT, "/icon.svg"])
def test_nothing_inline_and_nothing_from_elsewhere(client: TestClient, path: str) -> None:
    policy = client.get(path).headers["content-security-policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


@pytest.mark.parametrize(
    "path",
    [
        "/assets/gone-12345678.js",
        "/assets/..%2findex.html",
        "/assets/..%2f..%2fpages.py",
        "/assets/%2e%2e/index.html",
        "/assets/.hidden.js",
        "/assets/secret.txt",
        "/assets/folder.js",
        "/assets/" + "x" * 300,
        "/assets/",
        "/index.html",
    ],
)
def test_nothing_else_is_given_out(tmp_path: Path, settings: Settings, path: str) -> None:
    shutil.copytree(TINY_PAGE, page := tmp_path / "page")
    (page / "assets" / ".hidden.js").write_text("secret")
    (page / "assets" / "secret.txt").write_text("secret")
    (page / "assets" / "folder.js").mkdir()
    app = create_app(settings, FakeService().open, lambda: NOW, built_page=page)
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.get(path)
        assert answer.status_code in {404, 422}
        assert answer.json()["status"] == "error"
        assert answer.headers["cache-control"] == "no-store", "it may be there in a minute"


def test_without_a_build_the_page_says_what_to_do_and_is_there_once_it_is_built(
    tmp_path: Path, settings: Settings
) -> None:
    page = tmp_path / "page"
    with TestClient(create_app(settings, FakeService().open, lambda: NOW, built_page=page)) as client:
        before = client.get("/")
        assert before.status_code == 503
        assert "make web" in before.text
        assert before.headers["cache-control"] in {"no-store", "private, no-cache"}
        assert client.get("/healthz").status_code == 200
        shutil.copytree(TINY_PAGE, page)
        assert client.get("/").text == (TINY_PAGE / "index.html").read_text("utf-8")
        (page / "index.html").write_text("<!doctype html><title>built again</title>")
        assert "built again" in client.get("/").text
