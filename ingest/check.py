"""Why a source gives what it gives: fetched and parsed as in a refresh, and nothing stored.

``check_source``, ``check_url`` and ``check_file`` differ in where the bytes come from and in how their parser is found;
what a refresh would make of them is the pipeline's own answer. Showing it is left to ``source_commands``.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from ingest.fetcher import Fetched, Fetcher, HttpStatus
from ingest.observation import Observation, Parsed, joined_form
from ingest.pipeline import decide
from ingest.recognise import Feed, feeds_in, is_page, recognise
from ingest.safety import Gate
from ingest.safety_rules import Vocabulary
from ingest.score import Point
from ingest.source_file import entry, suggested_id
from ingest.sources.base import Source, SourceEntry
from trendrag.errors import ConfigurationError, FetchError, ParseError, SourceError
from trendrag.settings import IngestSettings
from trendrag.text import clean_line

# What a saved payload doesn't say about where it came from. Reserved names, which are nobody's.
_UNSAID = {
    "gdelt": {"query": "saved"},
    "google_trends": {"region": "ZZ"},
    "mastodon": {"host": "saved.invalid"},
    "reddit": {"subreddit": "saved"},
    "rss": {"url": "https://saved.invalid/"},
    "wikimedia": {"project": "en.wikipedia"},
    "youtube": {"region": "ZZ"},
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came, before it was parsed. ``asked`` and ``url`` differ where there were redirects; ``status`` and
    ``content_type`` are None for a file."""

    asked: str
    url: str
    status: int | None = None
    content_type: str | None = None
    size: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a refresh would make of these observations alone. ``phrases`` are its trends, best first; ``withheld``
    counts topics, ``left_out`` and ``too_old`` observations."""

    phrases: tuple[str, ...] = ()
    withheld: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    too_old: int = 0


@dataclass(frozen=True, slots=True)
class Check:
    """``fields`` are what an entry of the sources file needs besides its id, as far as known. ``error`` is None where
    the payload could be parsed, which does not mean that there was anything in it; see ``usable``."""

    target: str
    answer: Answer
    fields: dict[str, str] = field(default_factory=dict)
    parsed: Parsed = field(default_factory=Parsed)
    outlook: Outlook = field(default_factory=Outlook)
    feeds: tuple[Feed, ...] = ()
    error: SourceError | None = None

    @property
    def usable(self) -> bool:
        return self.error is None and bool(self.parsed.observations)

    @property
    def newest(self) -> datetime | None:
        return max((each.published_at or each.at for each in self.parsed.observations), default=None)


async def check_source(source: Source, fetcher: Fetcher, settings: IngestSettings, now: datetime) -> Check:
    """An entry of the list. Each of its addresses in turn, as in a refresh."""
    fields = {"type": source.model_dump()["type"]} if isinstance(source, SourceEntry) else {}
    headers = source.headers(settings)
    *earlier, last = source.urls(now)
    for url in earlier:
        fetched, answer, error = await _ask(url, fetcher, headers)
        if not (isinstance(error, HttpStatus) and error.status == 404):
            break
    else:
        fetched, answer, error = await _ask(last, fetcher, headers)
    if fetched is None:
        return Check(source.id, answer, fields, error=error)
    return await asyncio.to_thread(_read, source.id, fetched.body, answer, source, fields, settings, fetched.fetched_at)


async def check_url(url: str, fetcher: Fetcher, settings: IngestSettings, kind: str | None = None) -> Check:
    """An address. Its type is seen from what it answers, unless it is given."""
    fetched, answer, error = await _ask(url, fetcher)
    if fetched is None:
        return Check(url, answer, error=error)
    return await asyncio.to_thread(_read_unknown, url, fetched.body, answer, settings, fetched.fetched_at, url, kind)


def check_file(file: Path, settings: IngestSettings, now: datetime, kind: str | None = None) -> Check:
    """A saved payload, read as if it were fetched now."""
    try:
        with file.open("rb") as opened:
            payload = opened.read(settings.max_bytes + 1)
    except OSError as error:
        raise ConfigurationError(f"{file} can't be read: {error.strerror}") from error
    answer = Answer(str(file), str(file), size=len(payload))
    if len(payload) > settings.max_bytes:
        limit = f"more than {settings.max_bytes / 2**20:.1f} MiB, which is what TRENDRAG_INGEST__MAX_BYTES allows"
        return Check(str(file), answer, error=FetchError(f"{file} has {limit}"))
    return _read_unknown(str(file), payload, answer, settings, now, None, kind)


def outlook(observations: Sequence[Observation], settings: IngestSettings, now: datetime) -> Outlook:
    """What a refresh would make of ``observations`` if there were nothing else. Pure.

    Of the safety gate only what is certain is applied, the vocabulary's strong terms: the classifier needs the weights
    of the embedding model, and a refresh may withhold more.
    """
    max_age = timedelta(hours=settings.max_age_hours)
    decision = decide(
        observations,
        [Point(o.source, o.family, o.key, joined_form(o.title), o.at, o.volume, o.usual) for o in observations],
        Gate(Vocabulary.built_in(), None, strict=False),
        None,
        now=now,
        half_life=timedelta(hours=settings.half_life_hours),
        max_age=max_age,
    )
    phrases = tuple(trend.phrase for trend in decision.trends)
    too_old = sum(each.at < now - max_age for each in observations)
    return Outlook(phrases, decision.withheld, decision.left_out, too_old)


def advice(check: Check) -> str | None:
    """What the user can do about a check that went wrong, or that found less than was hoped for. Pure."""
    error = check.error
    if check.feeds:
        return "The page names feeds; check one of these:"
    if isinstance(error, HttpStatus):
        return _status_advice(error.status)
    if isinstance(error, FetchError):
        return (
            "Check the address, and that this machine reaches it. The limits are TRENDRAG_INGEST__TIMEOUT_S and "
            "TRENDRAG_INGEST__MAX_BYTES."
        )
    if isinstance(error, ParseError):
        return (
            "Open the address in a browser: a consent or block page means that the site refuses programs. A site's "
            "feed is often found at /feed, /rss or /atom.xml. --type says which parser to use."
        )
    if not check.parsed.observations:
        return "The answer is in order and empty. It may be so for now: check again later."
    if check.outlook.too_old == len(check.parsed.observations):
        return "Everything in it is older than TRENDRAG_INGEST__MAX_AGE_HOURS: the source seems to sleep."
    if not check.outlook.phrases and any(each.kind == "headline" for each in check.parsed.observations):
        return "A headline counts once it names what another publisher names too: a feed alone shows less than it adds."
    return None


def _status_advice(status: int) -> str:
    if status in (401, 403):
        return (
            "The server refuses. Some want to know whom they serve: set TRENDRAG_INGEST__CONTACT to your e-mail or URL."
        )
    if status in (404, 410):
        return (
            "There is nothing at this address. Check the site's own page instead: the feeds that it names are listed."
        )
    if status == 429:
        return "You were there too often. Wait an hour, and refresh less often."
    return "The server has a fault of its own. Try again later." if status >= 500 else "Check the address."


async def _ask(
    url: str, fetcher: Fetcher, headers: Mapping[str, str] | None = None
) -> tuple[Fetched | None, Answer, FetchError | None]:
    began = time.monotonic()
    try:
        fetched = await fetcher.get(url, headers=headers)
    except FetchError as error:
        status = error.status if isinstance(error, HttpStatus) else None
        return None, Answer(url, url, status, seconds=time.monotonic() - began), error
    seconds = time.monotonic() - began
    said = clean_line(fetched.headers.get("content-type", ""), 80) or None
    return fetched, Answer(url, fetched.url, 200, said, len(fetched.body), seconds), None


def _read_unknown(
    target: str,
    payload: bytes,
    answer: Answer,
    settings: IngestSettings,
    now: datetime,
    url: str | None,
    kind: str | None,
) -> Check:
    try:
        fields = recognise(payload, url, kind)
        source = entry(
            {"id": suggested_id(fields, ()) if url else "saved", **_UNSAID.get(fields["type"], {}), **fields}
        )
    except ParseError as error:
        return Check(target, answer, feeds=_feeds(payload, answer), error=error)
    done = _read(target, payload, answer, source, fields, settings, now)
    return replace(done, fields=fields | {"language": done.parsed.language}) if done.parsed.language else done


def _read(
    target: str,
    payload: bytes,
    answer: Answer,
    source: Source,
    fields: dict[str, str],
    settings: IngestSettings,
    now: datetime,
) -> Check:
    try:
        parsed = source.parse(payload, now)
    except ParseError as error:
        return Check(target, answer, fields, feeds=_feeds(payload, answer), error=error)
    return Check(target, answer, fields, parsed, outlook(parsed.observations, settings, now))


def _feeds(payload: bytes, answer: Answer) -> tuple[Feed, ...]:
    return feeds_in(payload, answer.url) if is_page(payload) else ()
