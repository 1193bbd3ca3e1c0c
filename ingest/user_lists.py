"""The user's own word on what may be offered: phrases that are always withheld, and phrases that never are."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ingest.observation import joined_form
from ingest.safety_rules import words_of
from trendrag.errors import ConfigurationError
from trendrag.settings import Settings


@dataclass(frozen=True)
class UserLists:
    """Phrases as the user wrote them."""

    allow: tuple[str, ...] = ()
    block: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        text = "\n".join([*sorted(self.allow), "", *sorted(self.block)])
        return hashlib.sha256(text.encode()).hexdigest() if self.allow or self.block else ""

    @cached_property
    def _allowed(self) -> dict[str, str]:
        return {joined_form(entry): entry for entry in self.allow}

    @cached_property
    def _blocked(self) -> dict[str, str]:
        return {joined_form(entry): entry for entry in self.block}

    @cached_property
    def _blocked_words(self) -> list[tuple[str, str]]:
        return [(f" {' '.join(words_of(entry))} ", entry) for entry in self.block if words_of(entry)]

    def allows(self, names: Iterable[str]) -> str | None:
        """The entry that is one of ``names``, as far as case, accents, spacing and hashes go."""
        return next((self._allowed[form] for name in names if (form := joined_form(name)) in self._allowed), None)

    def blocks(self, names: Iterable[str], headlines: Iterable[str]) -> str | None:
        """The entry that is one of ``names``, or stands in a name or headline as whole words."""
        names = tuple(names)
        if entry := next((self._blocked[form] for name in names if (form := joined_form(name)) in self._blocked), None):
            return entry
        if not self.block:
            return None
        texts = [f" {' '.join(words_of(text))} " for text in (*names, *headlines)]
        return next((entry for words, entry in self._blocked_words if any(words in text for text in texts)), None)


NO_LISTS = UserLists()


def load_user_lists(settings: Settings) -> UserLists:
    """The lists that the settings name; by default ``allow.txt`` and ``block.txt`` in the data directory, if there.

    Raises:
        ConfigurationError: a file that a setting names can't be read, or one is not text.
    """
    ingest = settings.ingest
    return UserLists(
        allow=_read(ingest.allowlist, settings.data_dir / "allow.txt", "ALLOWLIST"),
        block=_read(ingest.blocklist, settings.data_dir / "block.txt", "BLOCKLIST"),
    )


def parse_list(text: str) -> tuple[str, ...]:
    """One phrase a line. A line that begins with "# " is a comment; "#example" is a hashtag."""
    lines = (line.strip() for line in text.lstrip("\ufeff").splitlines())
    return tuple(dict.fromkeys(line for line in lines if joined_form(line) and not line.startswith("# ")))


def _read(named: Path | None, default: Path, setting: str) -> tuple[str, ...]:
    file = named or default
    if named is None and not file.exists():
        return ()
    try:
        return parse_list(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"TRENDRAG_INGEST__{setting}: {file} can't be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"TRENDRAG_INGEST__{setting}: {file} is not UTF-8 text") from error
