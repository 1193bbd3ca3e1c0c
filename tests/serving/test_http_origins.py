"""What pages of other origins can and can't do, and under which names the server is reached."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from starlette.testclient import TestClient

from serving.app import create_app
from serving.http.origins import host_name
from tests.fakes import NOW
from tests.serving.fakes import FakeService
from tests.serving.test_http_captions import PATHS, body
from trendrag.errors import ConfigurationError
from trendrag.settings import ServerSettings, Settings, load_settings

Make = Callable[..., TestClient]
SHOP = "https://shop.example"


@pytest.fixture
def make(settings: Settings) -> Iterator[Make]:
    with ExitStack() as stack:

        def client(**server: object) -> TestClient:
            changed = {"server": ServerSettings.model_validate(server)}
            app = create_app(settings.model_copy(update=changed), FakeService().open, lambda: NOW)
            return stack.enter_context(TestClient(app, "http://127.0.0.1:8000"))

        yield client


@pytest.mark.parametrize(
    ("host", "taken"),
    [
        ("127.0.0.1:8000", True),
        ("127.0.0.1", True),
        ("[::1]:8000", True),
        ("LOCALHOST:8000", True),
        ("trendrag.localhost", True),
        ("192.0.2.7:8000", True),
        ("captions.example", True),
        ("Captions.Example.:443", True),
        ("evil.example", False),
        ("captions.example.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example:8000", False),
        ("", False),
        ("[::1", False),
        ("localhost:8000@evil.example", False),
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/v1/caption", "/metrics"])
def test_a_name_that_was_rebound_to_this_machine_reaches_nothing(make: Make, path: str, host: str, taken: bool) -> None:
    answer = make(hosts=("captions.example",)).get(path, headers={"Host": host})
    assert (answer.status_code == 421) is not taken
    if not taken:
        assert answer.json()["code"] == "unknown_host"
        assert "TRENDRAG_SERVER__HOSTS" in answer.json()["message"]


def test_all_names_where_the_operator_says_so(make: Make) -> None:
    assert make(hosts=("*",)).get("/healthz", headers={"Host": "anything.example"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        ({}, True),  # no browser
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:8000"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, False),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:3000"}, False),  # another program's page here
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "rubbish"}, False),
        ({"Origin": "http://127.0.0.1:8000"}, True),
        ({"Origin": "https://127.0.0.1:8000"}, True),  # a proxy took TLS off
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "http://127.0.0.1:8001"}, False),
        ({"Origin": "http://127.0.0.1"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "127.0.0.1:8000"}, False),
        ({"Origin": "file://127.0.0.1:8000"}, False),
    ],
)
@pytest.mark.parametrize("path", PATHS)
def test_a_page_elsewhere_can_have_no_caption_written(
    make: Make, path: str, headers: dict[str, str], taken: bool
) -> None:
    answer = make().post(path, json=body(), headers=headers)
    assert answer.status_code == (200 if taken else 403)
    if not taken:
        assert answer.json()["code"] == "cross_origin"
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"])
def test_neither_by_what_needs_no_permission(make: Make, kind: str) -> None:
    headers = {"Content-Type": kind, "Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    assert make().post(PATHS[0], content=b"x", headers=headers).status_code == 403


def test_reading_changes_nothing_and_is_answered_but_not_shared(make: Make) -> None:
    answer = make().get("/readyz", headers={"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def preflight(client: TestClient, origin: str) -> dict[str, str]:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    return dict(client.options(PATHS[0], headers=asked).headers)


def test_without_origins_no_page_elsewhere_is_let_in(make: Make) -> None:
    assert "access-control-allow-origin" not in preflight(make(), SHOP)


def test_named_origins_may_read_with_cookies_and_others_may_not(make: Make) -> None:
    client = make(cors_origins=(SHOP,))
    told = preflight(client, SHOP)
    assert (told["access-control-allow-origin"], told["access-control-allow-credentials"]) == (SHOP, "true")
    assert "access-control-allow-origin" not in preflight(client, "https://shop.example.evil.example")
    headers = {"Origin": SHOP, "Sec-Fetch-Site": "cross-site"}
    answer = client.post(PATHS[0], json=body(), headers=headers)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, SHOP)
    exposed = set(answer.headers["access-control-expose-headers"].split(", "))
    assert {"Retry-After", "X-Caption-Id", "X-History", "Idempotency-Replayed"} <= exposed
    assert client.post(PATHS[0], json=body(), headers=headers | {"Origin": "https://evil.example"}).status_code == 403


def test_all_origins_never_with_cookies(make: Make) -> None:
    client = make(cors_origins=("*",))
    told = preflight(client, SHOP)
    assert told["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in told
    headers = {"Origin": SHOP, "Sec-Fetch-Site": "cross-site", "Cookie": "visitor=1"}
    answer = client.post(PATHS[0], json=body(), headers=headers)
    assert answer.status_code == 200
    assert "access-control-allow-credentials" not in answer.headers


def test_a_refusal_can_be_read_by_pages_that_are_let_in(settings: Settings) -> None:
    server = ServerSettings(cors_origins=(SHOP,), keys="off")
    limits = settings.limits.model_copy(update={"requests_per_minute": 1})
    app = create_app(settings.model_copy(update={"server": server, "limits": limits}), FakeService().open, lambda: NOW)
    with TestClient(app, "http://127.0.0.1", client=("203.0.113.9", 1)) as client:
        headers = {"Origin": SHOP}
        client.post(PATHS[0], json=body(), headers=headers)
        answer = client.post(PATHS[0], json=body(), headers=headers)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (429, SHOP)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CORS_ORIGINS", "shop.example"),
        ("CORS_ORIGINS", "https://shop.example/"),
        ("CORS_ORIGINS", "https://Shop.example"),
        ("HOSTS", "https://captions.example"),
        ("HOSTS", "captions.example:443"),
        ("TRUSTED_PROXIES", "10.0.0.0/99"),
        ("TRUSTED_PROXIES", "proxy.example"),
    ],
)
def test_settings_that_would_never_fit_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"TRENDRAG_SERVER__{name}", value)
    with pytest.raises(ConfigurationError, match=f"TRENDRAG_SERVER__{name}"):
        load_settings()


def test_lists_in_the_environment_have_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRENDRAG_SERVER__HOSTS", "a.example, B.example")
    monkeypatch.setenv("TRENDRAG_SERVER__TRUSTED_PROXIES", "10.0.0.7,fd00::/8")
    server = load_settings().server
    assert server.hosts == ("a.example", "b.example")
    assert server.trusted_proxies == ("10.0.0.7/32", "fd00::/8")


def test_host_names() -> None:
    assert [host_name(host) for host in ("a", "A:1", "[::1]", "[::1]:x", "a:b", ":1", "[]")] == [
        "a", "a", "::1", None, None, None, None,
    ]  # fmt: skip
