"""`trendrag keys`, and a server that is not opened to the world by accident."""

import asyncio
import json
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pydantic import SecretStr
from sqlalchemy import select

from serving import commands, key_commands
from serving.commands import serve
from serving.identity.door import is_loopback, refuse_without_keys
from serving.identity.keyring import Keyring
from serving.identity.keys import SCOPES, ApiKey, read_key
from serving.identity.store import KeyStore
from serving.key_commands import keys
from serving.store.database import Database
from serving.store.tables import KeyRow
from tests.databases import environment
from trendrag.errors import ConfigurationError, RequestError, StorageError
from trendrag.settings import ServerSettings, Settings

ANYWHERE = "0.0.0.0"  # noqa: S104


class Shell:
    def __init__(self, settings: Settings) -> None:
        self._environment = environment(settings)

    def __call__(self, *words: str, **settings: str) -> Result:
        command = serve if words[0] == "serve" else keys
        rest = words[1:] if words[0] == "serve" else words
        return CliRunner(env=self._environment | {"COLUMNS": "160"} | settings).invoke(command, rest)

    def made(self, *words: str) -> str:
        result = self("create", "test", *words)
        assert result.exit_code == 0, result.output
        return result.stdout.strip()

    def listed(self, *words: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(self("list", "--json", *words).stdout)
        return found


@pytest.fixture
def shell(service_settings: Settings) -> Shell:
    return Shell(service_settings)


def test_the_scopes_of_the_command_line_are_those_of_keys() -> None:
    assert tuple(SCOPES) == key_commands.SCOPES


def test_a_key_is_shown_once_alone_on_stdout_and_only_its_digest_is_kept(
    shell: Shell, service_settings: Settings
) -> None:
    result = shell("create", "my app", "--captions-per-day", "5", "--expires", "90d")
    key = result.stdout.removesuffix("\n")
    claim = read_key(key)
    assert claim is not None
    assert "my app" in result.stderr
    assert key not in result.stderr

    async def rows() -> str:
        database = Database.of(service_settings)
        async with database.begin() as connection:
            found = (await connection.execute(select(KeyRow.__table__))).all()
        await database.aclose()
        return str(found)

    kept = asyncio.run(rows())
    assert claim.id in kept
    assert claim.secret not in kept
    shown = shell("list").output + shell("list", "--all", "--json").output + shell("revoke", claim.id).output
    assert claim.id in shown
    assert claim.secret not in shown


def test_a_key_may_what_it_was_made_for(shell: Shell) -> None:
    shell.made()
    shell.made("--scope", "metrics", "--captions-per-day", "7", "--expires", "2100-01-31")
    one, other = shell.listed()
    assert (one["scopes"], one["captions_per_day"], one["expires_at"]) == (["captions", "history"], None, None)
    assert (other["scopes"], other["captions_per_day"], other["expires_at"]) == (
        ["metrics"],
        7,
        "2100-01-31T00:00:00Z",
    )
    told = json.loads(shell("create", "json", "--expires", "12h", "--json").stdout)
    assert read_key(told["key"]) is not None
    ends = datetime.fromisoformat(told["expires_at"]) - datetime.fromisoformat(told["created_at"])
    assert timedelta(hours=11, minutes=59) <= ends <= timedelta(hours=12)


@pytest.mark.parametrize("when", ["yesterday", "2020-01-01", "0d", "-5d", "90", "9m", "2026-02-30", "99999d9", ""])
def test_an_end_that_can_not_be_meant_is_refused(shell: Shell, when: str) -> None:
    result = shell("create", "x", "--expires", when)
    assert result.exit_code == 2
    assert "--expires" in result.output
    assert shell.listed() == []


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "a\x1b[2Jb"])
def test_a_name_that_says_nothing_is_refused(shell: Shell, name: str) -> None:
    assert isinstance(shell("create", name).exception, RequestError)


def test_markup_in_a_name_is_shown_as_it_is(shell: Shell) -> None:
    shell("create", "[red]me[/red]")
    assert "[red]me[/red]" in shell("list").output


def test_a_revoked_key_leaves_the_list_and_the_rest_stays(shell: Shell) -> None:
    one, other = shell.made(), shell.made()
    gone, stays = read_key(one), read_key(other)
    assert gone
    assert stays
    assert "is revoked" in shell("revoke", one).output  # the key itself, as it leaked
    assert "revoked before" in shell("revoke", gone.id).output
    assert [row["id"] for row in shell.listed()] == [stays.id]
    everything = {row["id"]: row["revoked_at"] for row in shell.listed("--all")}
    assert everything[gone.id] is not None
    assert everything[stays.id] is None


def test_an_unknown_id_is_an_error_that_says_where_ids_are(shell: Shell) -> None:
    error = shell("revoke", "nobody").exception
    assert isinstance(error, RequestError)
    assert "trendrag keys list" in str(error)


def test_the_list_says_when_a_key_was_used_last_and_how_much_today(shell: Shell, service_settings: Settings) -> None:
    key = read_key(shell.made("--captions-per-day", "20"))
    assert key is not None
    assert "never" in shell("list").output
    now = datetime.now(UTC)

    async def use() -> None:
        database = Database.of(service_settings)
        store = KeyStore(database)
        keyring = Keyring(store, lambda: now)
        assert isinstance(await keyring.check(key), ApiKey)
        await keyring.aclose()
        await store.take(key.id, now.date(), 12, 20)
        await database.aclose()

    asyncio.run(use())
    (row,) = shell.listed()
    assert row["last_used_at"] == now.isoformat(timespec="seconds").replace("+00:00", "Z")
    assert row["captions_today"] == 12
    assert "12 of 20" in shell("list").output


def test_a_list_without_keys_says_how_to_make_one(shell: Shell) -> None:
    assert "trendrag keys create NAME" in shell("list").output


# A server is not opened by accident


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        (ANYWHERE, False),
        ("::", False),
        ("", False),
        ("192.168.1.5", False),
        ("localhost.example", False),
        ("2130706433", False),
    ],
)
def test_which_addresses_are_this_machine_alone(host: str, inside: bool) -> None:
    assert is_loopback(host) is inside


@pytest.mark.parametrize("host", [ANYWHERE, "::", "192.0.2.1", "my-host"])
def test_without_a_key_the_server_does_not_listen_beyond_this_machine(
    shell: Shell, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listened = []
    monkeypatch.setattr(socket, "create_server", lambda *where, **_: listened.append(where))
    for words, setting in ((("--host", host), {}), ((), {"TRENDRAG_SERVER__HOST": host})):
        error = shell("serve", *words, **setting).exception
        assert isinstance(error, ConfigurationError)
        assert "trendrag keys create NAME" in str(error)
    assert not listened


def test_keys_that_open_nothing_do_not_count(shell: Shell, service_settings: Settings) -> None:
    async def refuses(at: datetime) -> bool:
        database = Database.of(settings)
        try:
            await refuse_without_keys(settings, KeyStore(database), at)
        except ConfigurationError:
            return True
        finally:
            await database.aclose()
        return False

    server = service_settings.server.model_copy(update={"host": ANYWHERE})
    settings = service_settings.model_copy(update={"server": server})
    now = datetime.now(UTC)
    shell("revoke", shell.made())
    shell.made("--expires", "1d")
    assert not asyncio.run(refuses(now))
    assert asyncio.run(refuses(now + timedelta(days=2)))
    shell.made()
    assert not asyncio.run(refuses(now + timedelta(days=2)))


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that `serve` would have listened on."""
    asked: list[str] = []

    def note(host: str, _port: int) -> None:
        asked.append(host)
        raise ConfigurationError("stopped here")

    monkeypatch.setattr(commands, "_listen", note)
    return asked


def test_with_a_key_or_by_explicit_choice_it_does(shell: Shell, listening: list[str]) -> None:
    result = shell("serve", "--host", ANYWHERE, TRENDRAG_SERVER__KEYS="off")
    assert "Warning: nobody is asked" in result.output
    assert listening == [ANYWHERE]
    shell.made()
    result = shell("serve", "--host", ANYWHERE)
    assert "Warning" not in result.output
    assert listening == [ANYWHERE, ANYWHERE]


def test_on_this_machine_it_needs_none_unless_that_is_set(shell: Shell, listening: list[str]) -> None:
    shell("serve")
    assert listening == ["127.0.0.1"]
    error = shell("serve", TRENDRAG_SERVER__KEYS="required").exception
    assert isinstance(error, ConfigurationError)
    assert "no API key yet" in str(error)
    assert listening == ["127.0.0.1"]


def test_a_database_that_is_away_keeps_no_server_from_starting(tmp_path: Path, listening: list[str]) -> None:
    url = "postgresql://me:s3cret@127.0.0.1:1/db"
    shell = Shell(Settings(data_dir=tmp_path, server=ServerSettings(database_url=SecretStr(url))))
    result = shell("serve", "--host", ANYWHERE)
    assert "Until then everybody is refused" in result.output
    assert "s3cret" not in result.output
    assert listening == [ANYWHERE]
    assert isinstance(shell("list").exception, StorageError)
