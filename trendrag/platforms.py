"""What each platform takes: the longest caption and alt text, how many hashtags, how much emoji.

The figures are in ``platforms.toml``, each with its date and source. A user's file of the same form is read over it.
"""

import tomllib
from collections.abc import ItemsView, Mapping
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from trendrag.errors import ConfigurationError, RequestError
from trendrag.types import MAX_CAPTION_CHARS, CaptionRequest, Frozen, Platform

Said = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]
Name = Annotated[str, StringConstraints(pattern=r"^[\w .&'’-]{1,40}$")]
"""It stands in the prompt, so it holds no more than letters, digits and the punctuation of names."""


class Rule(Frozen):
    """``kind`` "limit": the platform refuses more; "habit": what is usual. ``seen`` is when it was looked up."""

    kind: Literal["limit", "habit"]
    seen: date
    source: Said
    note: str = ""


class Chars(Rule):
    value: int = Field(ge=40, le=1_000_000)


class Hashtags(Rule):
    value: int = Field(ge=0, le=30)


class Emoji(Rule):
    value: Literal["none", "few", "free"]


class PlatformRules(Frozen):
    """Lengths are in code points."""

    name: Name
    max_chars: Chars
    usual_chars: Chars
    short_chars: Chars
    medium_chars: Chars
    long_chars: Chars
    alt_chars: Chars
    usual_alt_chars: Chars
    hashtags: Hashtags
    emoji: Emoji

    def limit(self, *, alt_text: bool) -> int:
        """The longest caption or alt text that may be asked for."""
        return min((self.alt_chars if alt_text else self.max_chars).value, MAX_CAPTION_CHARS)

    def chars(self, request: CaptionRequest) -> int:
        """The longest text for a request that names no ``max_chars``."""
        usual = self.usual_alt_chars if request.alt_text else self.usual_chars
        by_length = {"short": self.short_chars, "medium": self.medium_chars, "long": self.long_chars}
        wanted = by_length[request.length] if request.length else usual
        return min(wanted.value, self.limit(alt_text=request.alt_text))


class Platforms:
    """The rules of every platform that a request can name."""

    def __init__(self, rules: Mapping[Platform, PlatformRules]) -> None:
        self._rules = dict(rules)

    def __getitem__(self, platform: Platform) -> PlatformRules:
        return self._rules[platform]

    def items(self) -> ItemsView[Platform, PlatformRules]:
        return self._rules.items()

    def filled_in(self, request: CaptionRequest) -> CaptionRequest:
        """The request with its ``max_chars`` said.

        Raises:
            RequestError: it asks for more than the platform takes.
        """
        rules = self[request.platform]
        limit = rules.limit(alt_text=request.alt_text)
        if request.max_chars is None:
            return request.model_copy(update={"max_chars": rules.chars(request)})
        if request.max_chars > limit:
            what = "alt text" if request.alt_text else "a caption"
            where = f" for {rules.name}" if request.platform != "generic" else ""
            raise RequestError(f"max_chars: {what}{where} has at most {limit} characters. Ask for fewer.")
        return request


@cache
def built_in_platforms() -> Platforms:
    return Platforms(_parsed(_built_in(), "platforms.toml"))


def read_platforms(path: Path | None) -> Platforms:
    """The built-in rules with those of the file, if any, over them.

    Raises:
        ConfigurationError: the file can't be read or used; the message names it, the key, and what is wrong.
    """
    if path is None:
        return built_in_platforms()
    try:
        own = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from error
    tables = _built_in()
    for platform, rules in own.items():
        if platform not in tables:
            raise ConfigurationError(f"{path}: there is no platform {platform!r}. There are {', '.join(tables)}.")
        if not isinstance(rules, dict):
            raise ConfigurationError(f"{path}: {platform} must be a table of rules, as in [{platform}].")
        tables[platform] |= rules
    return Platforms(_parsed(tables, str(path)))


def _built_in() -> dict[str, dict[str, Any]]:
    return tomllib.loads((files("trendrag") / "platforms.toml").read_text("utf-8"))


def _parsed(tables: Mapping[str, Mapping[str, Any]], where: str) -> dict[Platform, PlatformRules]:
    platforms: tuple[Platform, ...] = get_args(Platform)
    adapter = TypeAdapter(PlatformRules)
    parsed: dict[Platform, PlatformRules] = {}
    for platform in platforms:
        try:
            parsed[platform] = adapter.validate_python({**tables["generic"], **tables[platform]})
        except ValidationError as error:
            fault = error.errors(include_input=False, include_url=False)[0]
            key = ".".join(map(str, fault["loc"]))
            raise ConfigurationError(f"{where}: [{platform}] {key}: {fault['msg']}") from None
    return parsed
