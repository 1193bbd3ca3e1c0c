"""The user's file grows at its end, keeps what is theirs, and is never lost."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.source_file import appended, built_in_copy, entry, read_list, suggested_id, write_list
from ingest.sources import load_sources, parse_sources
from ingest.sources.base import SourceEntry
from tests.ingest.fakes import NOW
from trendrag.errors import ConfigurationError

FEED = {"id": "new", "type": "rss", "url": "https://x.example/feed"}
MINE = '# mine\n[[source]]\nid   = "hn" # the orange one\ntype = "hackernews"\n'


def grown(text: str, fields: Mapping[str, str] = FEED) -> str:
    return appended(text, fields, where="mine.toml", now=NOW)


@pytest.mark.parametrize("text", [MINE, MINE.rstrip(), MINE.replace("\n", "\r\n"), "", "# nothing yet\n"])
def test_what_was_there_stays_byte_for_byte(text: str) -> None:
    after = grown(text)
    assert after.startswith(text)
    assert [each.id for each in parse_sources(after, "mine.toml")] == [*(["hn"] if "hn" in text else []), "new"]
    assert ("\r\n" in text) == ("\r\n" in after)
    assert after.count("\r\n") in (0, after.count("\n"))


_LINE = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(publisher=_LINE, categories=st.lists(_LINE, max_size=3).map(tuple), path=st.text("aä\"'\\&%=?é", max_size=8))
def test_what_is_added_reads_back_equal(publisher: str, categories: tuple[str, ...], path: str) -> None:
    fields = FEED | {"url": f"https://x.example/{path}", "publisher": publisher, "categories": categories}
    *before, added = parse_sources(appended(MINE, fields, where="mine.toml", now=NOW), "mine.toml")
    assert isinstance(added, SourceEntry)
    assert added.model_dump()["publisher"] == publisher
    assert added.categories == categories
    assert before == list(parse_sources(MINE, "mine.toml"))
    assert added == entry(fields)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        (FEED | {"id": "hn"}, "'hn' already.*--id"),
        ({"id": "other", "type": "hackernews"}, "already, as 'hn'"),
        (FEED | {"id": "Not an id"}, "id: "),
        (FEED | {"region": "Mars"}, "region: "),
        (FEED | {"publisher": "a" * 81}, "publisher: .*80 char"),
        (FEED | {"language": "en" + "-abcdefgh" * 4}, "language: .*35 char"),
        ({"id": "g", "type": "google_trends"}, "region: Field required"),
        ({"id": "g", "type": "hackernews", "region": "US"}, "region: unknown field"),
    ],
)
def test_an_entry_that_cannot_stand_is_refused(fields: Mapping[str, str], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        grown(MINE, fields)


@pytest.mark.parametrize("url", ["http://X.example/feed/", "https://x.example/feed"])
def test_one_address_in_two_spellings_is_one(url: str) -> None:
    with pytest.raises(ConfigurationError, match="already, as 'new'"):
        grown(grown(MINE), FEED | {"id": "again", "url": url})


def test_a_list_that_cannot_grow_at_its_end_says_what_to_add() -> None:
    with pytest.raises(ConfigurationError, match=r'Add this yourself:\n\[\[source\]\]\nid = "new"'):
        grown('source = [{id = "hn", type = "hackernews"}]\n')
    with pytest.raises(ConfigurationError, match="not valid TOML"):
        grown("[[source]\n")


def test_the_copy_of_the_built_in_list_is_that_list() -> None:
    assert parse_sources(built_in_copy(), "copy") == load_sources(None)


@pytest.mark.parametrize(
    ("fields", "taken", "name"),
    [
        ({"url": "https://www.example.org/food/rss.xml"}, [], "example-org-food"),
        ({"url": "https://www.example.org/feed"}, ["example-org", "example-org-2"], "example-org-3"),
        ({"type": "google_trends", "region": "US"}, [], "google-trends-us"),
        ({"url": "https://例え.example/" + "long/" * 40}, [], None),
        ({"url": "https://例え/"}, [], "source"),
    ],
)
def test_an_id_is_made_from_the_address(fields: Mapping[str, str], taken: list[str], name: str | None) -> None:
    made = suggested_id(fields, taken)
    assert name in (None, made)
    assert entry(FEED | {"id": made}).id == made


def test_the_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    real, link = tmp_path / "real.toml", tmp_path / "sources.toml"
    real.write_text(MINE)
    real.chmod(0o640)
    link.symlink_to(real)
    write_list(link, grown(MINE))
    assert link.is_symlink()
    assert (read_list(link), real.stat().st_mode & 0o777) == (grown(MINE), 0o640)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["real.toml", "sources.toml"]


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "sources.toml"
    file.write_text(MINE)

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ingest.source_file.os.fsync", full)
    with pytest.raises(ConfigurationError, match="No space left"):
        write_list(file, grown(MINE))
    assert file.read_text() == MINE
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_list_is_none_and_an_unreadable_one_an_error(tmp_path: Path) -> None:
    assert read_list(tmp_path / "none.toml") is None
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9")
    with pytest.raises(ConfigurationError, match="can't be read"):
        read_list(tmp_path / "latin.toml")
