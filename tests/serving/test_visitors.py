"""The page's cookie: whose it is, and what it is signed with."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from serving.identity.visitors import MIN_SECRET_CHARS, Visitors, visitor_secrets
from trendrag.errors import ConfigurationError
from trendrag.settings import ServerSettings, Settings

OLD, NEW = "o" * 40, "n" * 40


def test_a_visitor_is_known_by_the_cookie() -> None:
    visitors = Visitors([NEW])
    one, other = visitors.new(), visitors.new()
    assert one != other
    assert visitors.read(visitors.signed(one)) == one
    assert visitors.read(None) is None


def test_secrets_are_exchanged_without_forgetting_anybody() -> None:
    visitor = Visitors([OLD]).new()
    before, after = Visitors([OLD]).signed(visitor), Visitors([NEW, OLD]).signed(visitor)
    assert Visitors([NEW, OLD]).read(before) == visitor
    assert Visitors([NEW]).read(after) == visitor  # the first one signs
    assert Visitors([NEW]).read(before) is None


@given(st.integers(0, 200), st.characters())
def test_a_cookie_that_was_changed_is_nobodys(at: int, letter: str) -> None:
    visitors = Visitors([NEW])
    cookie = visitors.signed("v" * 22)
    at %= len(cookie)
    changed = cookie[:at] + letter + cookie[at + 1 :]
    read = visitors.read(changed)
    # The last letter of a signature in base64 has bits that say nothing.
    assert read is None or read == "v" * 22


@given(st.text(max_size=300))
def test_any_text_is_nobody(cookie: str) -> None:
    assert Visitors([NEW]).read(cookie) is None


def test_signed_by_us_for_something_else_is_nobody() -> None:
    visitors = Visitors([NEW])
    for strange in ("", "key:4g7m2kqp9xwz", "v" * 21, "v" * 23, "../../../../etc/passwd"):
        assert visitors.read(visitors.signed(strange)) is None


def test_the_secret_of_the_settings_is_used_and_too_short_ones_are_refused_unseen(settings: Settings) -> None:
    def of(text: str) -> tuple[str, ...]:
        server = ServerSettings(secret=SecretStr(text))
        return visitor_secrets(settings.model_copy(update={"server": server}))

    assert of(f"{NEW}, {OLD}\n") == (NEW, OLD)
    for bad in ("s3cret", f"{NEW},s3cret", f"{NEW},", "s" * (MIN_SECRET_CHARS - 1)):
        with pytest.raises(ConfigurationError, match="TRENDRAG_SERVER__SECRET needs secrets of at least") as raised:
            of(bad)
        assert "s3cret" not in str(raised.value)
    assert not settings.data_dir.exists()


def test_without_one_a_secret_is_made_once_for_its_user_alone(settings: Settings) -> None:
    first = visitor_secrets(settings)
    assert visitor_secrets(settings) == first
    (file,) = settings.data_dir.glob("visitor-secrets")
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(first[0]) >= MIN_SECRET_CHARS
    assert {each.name for each in settings.data_dir.iterdir()} <= {"visitor-secrets", "visitor-secrets.lock"}


def test_processes_that_start_at_the_same_moment_agree(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from trendrag.settings import Settings;"
        "from serving.identity.visitors import visitor_secrets; sys.stdin.read();"
        "print(visitor_secrets(Settings(data_dir=Path(sys.argv[1])))[0])"
    )
    started = [
        subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", script, str(tmp_path / "var")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in started:
        assert process.stdin
        process.stdin.close()
    found = set()
    for process in started:
        assert process.stdout
        found.add(process.stdout.read())
        process.stdout.close()
        assert process.wait() == 0
    assert len(found) == 1


def test_where_no_file_can_be_made_captions_go_on_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "var").write_text("not a folder")
    settings = Settings(data_dir=tmp_path / "var")
    one, other = visitor_secrets(settings), visitor_secrets(settings)
    assert one != other
    assert "forgotten when this server ends" in caplog.text
    assert one[0] not in caplog.text


def test_a_damaged_file_names_itself(settings: Settings) -> None:
    settings.data_dir.mkdir()
    (settings.data_dir / "visitor-secrets").write_text("short")
    with pytest.raises(ConfigurationError, match="visitor-secrets needs secrets"):
        visitor_secrets(settings)
