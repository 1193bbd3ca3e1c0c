"""When a source is asked, and what its answer means for the next time. Pure: the time and the jitter are arguments.

What it keeps of a source is one ``FetchState``; ``states`` stores it, ``read`` acts on it. Knows nothing of sockets, of
the database, or of what a list says.

- After an answer: the longest of the source's own interval, the TTL that a feed names within itself, and
  Cache-Control's max-age and Expires, less the Age of a copy out of a cache; from 5 min to 24 h.
- After an error: 5 min, doubled with every further error up to 24 h, and never before Retry-After (429 and 503).
- 304, or a 200 with the same bytes, is "unchanged". A dated feed then has nothing to tell and is not read again. A list
  of what is going on now that is still the same was seen again, now: its kept body is read as if it had just come, for
  else a trend that leads a list for a day would count as not seen since the morning. Neither makes a dated item newer.
- A redirect that is permanent all the way is adopted once it was seen five times with the same target; then every 20th
  request goes to the entry's own address again, to see whether it still redirects. One good answer without it, or one
  error at the target, and it is forgotten.
- 410 mutes the source until its entry is changed. 404 is an error like others: pages come back.
- Where nothing answers at all, it is our network that is down: no source is blamed for that (``is_outage``).
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

SHORTEST = timedelta(minutes=5)
LONGEST = timedelta(hours=24)
JITTER = 0.1
"""A wait after an error is longer by up to this part of it, so that sources that failed together come back apart."""

ADOPT_AFTER = 5
RECHECK_EVERY = 20
MAX_VALIDATOR_CHARS = 500
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?([0-9]{1,9})(?![0-9])", re.IGNORECASE)
_MAX_EXPONENT = 20


@dataclass(frozen=True, slots=True)
class FetchState:
    """What is known of a source from asking it. The default is that of a source that was never asked.

    ``url`` is the address, as the entry has it, whose answer the validators, ``checksum`` (SHA-256 of the body, hex),
    ``body`` and the redirect are of. ``body`` is kept of live lists only. ``errors`` counts the consecutive ones,
    ``reason`` says briefly what the last of them was. ``told_to_wait``: the source itself named ``next_due``.
    ``moved_to`` was seen ``moved_seen`` times in a row as the target of permanent redirects. ``muted`` says why it is
    never asked again. ``ttl_minutes`` is the pause that the body itself names; kept, for a 304 brings no body.
    Datetimes are aware UTC.
    """

    url: str | None = None
    etag: str | None = None
    last_modified: str | None = None
    checksum: str | None = None
    body: bytes | None = field(default=None, repr=False)
    last_attempt: datetime | None = None
    last_success: datetime | None = None
    last_changed: datetime | None = None
    errors: int = 0
    reason: str | None = None
    next_due: datetime | None = None
    told_to_wait: bool = False
    moved_to: str | None = None
    moved_seen: int = 0
    muted: str | None = None
    ttl_minutes: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer. ``url`` is the entry's address, also where an adopted one was asked in its place.

    ``checksum`` is None for 304. ``every`` is the source's own interval, ``ttl`` the pause that the body asks for,
    where it was read. ``moved`` are the addresses of a chain of redirects that were all permanent, in order; empty
    where there was none.
    """

    url: str
    headers: Mapping[str, str]
    every: timedelta
    checksum: str | None
    body: bytes | None = field(default=None, repr=False)
    moved: tuple[str, ...] = ()
    ttl: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """No good answer. ``status`` is None where the server gave none, or a 200 that can't be read."""

    reason: str
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    answered: bool = True


def due(state: FetchState, now: datetime, *, everything: bool = False) -> bool:
    """Whether the source may be asked at ``now``. ``everything`` overrules the times that we chose ourselves, not what
    the source asked for: to wait (Retry-After), or to stay away (410)."""
    if state.muted:
        return False
    if state.next_due is None or (everything and not state.told_to_wait):
        return True
    # Further ahead than any wait: the clock was wrong when this was written, and would keep the source away for years.
    return not now < state.next_due <= now + LONGEST * (1 + JITTER)


def conditions(state: FetchState, url: str, *, live: bool) -> dict[str, str]:
    """The headers that ask ``url`` for news only; none where a 304 could not be made sense of."""
    if state.url != url or state.checksum is None or (live and state.body is None):
        return {}
    asked = {"If-None-Match": state.etag, "If-Modified-Since": state.last_modified}
    return {name: value for name, value in asked.items() if value}


def address(state: FetchState, url: str) -> str:
    """Where to ask for the entry's ``url``: there, or where it has moved to."""
    return state.moved_to if state.url == url and _adopted(state) and state.moved_to else url


def unchanged(state: FetchState, answer: Answer) -> bool:
    """Whether the answer says what the one before said."""
    return answer.checksum is None or (state.url == answer.url and state.checksum == answer.checksum)


def after_answer(state: FetchState, answer: Answer, now: datetime, jitter: float) -> FetchState:
    """The state after a good answer that could be read. ``jitter`` ∈ [0, 1) takes up to a tenth off our own interval:
    sources drift apart, and a refresh every 15 min is never just too early for an interval of 15 min."""
    own = answer.every * (1 - JITTER * jitter)
    same = unchanged(state, answer)
    not_modified = answer.checksum is None
    moved_to, moved_seen = _moved(state, answer)
    ttl = state.ttl_minutes if same else _minutes(answer.ttl)
    wished = max(timedelta(minutes=ttl or 0), fresh_for(answer.headers, now))
    return FetchState(
        url=answer.url,
        # A 304 need not repeat the validators; a 200 without them has none.
        etag=_validator(answer.headers, "etag") or (state.etag if not_modified else None),
        last_modified=_validator(answer.headers, "last-modified") or (state.last_modified if not_modified else None),
        checksum=answer.checksum or state.checksum,
        body=state.body if not_modified else answer.body,
        last_attempt=now,
        last_success=now,
        last_changed=state.last_changed if same else now,
        next_due=now + _clamped(max(own, wished)),
        moved_to=moved_to,
        moved_seen=moved_seen,
        ttl_minutes=ttl,
    )


def after_error(state: FetchState, error: Failure, now: datetime, jitter: float) -> FetchState:
    """The state after no good answer: what was known stays, the wait grows. ``jitter`` ∈ [0, 1) makes it longer by up
    to a tenth."""
    errors = state.errors + 1
    state = replace(state, last_attempt=now, errors=errors, reason=error.reason, told_to_wait=False)
    if _adopted(state):
        state = replace(state, moved_to=None, moved_seen=0)
    elif error.status == 410:
        return replace(state, muted="410 (gone for good)", next_due=None)
    asked = retry_after(error.headers, now) if error.status in (429, 503) else None
    wait = max(_backoff(errors), _clamped(asked or timedelta()))
    return replace(state, next_due=now + wait * (1 + JITTER * jitter), told_to_wait=asked is not None)


def is_outage(asked: Collection[tuple[str, FetchState, Failure | None]]) -> bool:
    """Whether our own network is what failed, from (publisher family, state before, failure) of all that were asked.

    It is, where at least two publishers were asked, nobody answered, and one of them had been well before: sources that
    are down for long are sometimes asked with nobody else, and must not pass for an outage.
    """
    return (
        len({family for family, _, _ in asked}) >= 2
        and all(failure is not None and not failure.answered for _, _, failure in asked)
        and any(state.errors == 0 for _, state, _ in asked)
    )


def after_outage(state: FetchState, error: Failure, now: datetime, jitter: float) -> FetchState:
    """The state after an outage: as before, and asked again as soon as after a first error."""
    wait = SHORTEST * (1 + JITTER * jitter)
    return replace(state, last_attempt=now, reason=error.reason, next_due=now + wait, told_to_wait=False)


def fresh_for(headers: Mapping[str, str], now: datetime) -> timedelta:
    """For how much longer the server says that the answer is good: the longer of max-age and Expires, less its Age (the
    seconds that a cache on the way has kept it, RFC 9111, 4.2.3); 0 without them."""
    found = _MAX_AGE.search(headers.get("cache-control", ""))
    seconds = timedelta(seconds=int(found[1])) if found else timedelta()
    lifetime = max(seconds, _until(headers.get("expires"), headers, now) or timedelta())
    return max(lifetime - (_seconds(headers.get("age", "")) or timedelta()), timedelta())


def retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """How long the server asks to be left alone; None where it does not say so in a way that can be read."""
    text = headers.get("retry-after", "").strip()
    seconds = _seconds(text)
    return _until(text, headers, now) if seconds is None else seconds


def _until(text: str | None, headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """From the server's own clock, where it tells the time (``Date``), else from ours, to the HTTP date in ``text``."""
    moment = _http_date(text)
    return moment - (_http_date(headers.get("date")) or now) if moment else None


def _seconds(text: str) -> timedelta | None:
    """Whole seconds in digits, as Age and Retry-After have them."""
    digits = text.strip()
    return timedelta(seconds=min(int(digits[:10]), 10**9)) if digits.isascii() and digits.isdigit() else None


def _minutes(ttl: timedelta | None) -> int | None:
    return int(min(ttl, LONGEST) / timedelta(minutes=1)) if ttl else None


def _http_date(text: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text) if text else None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC) if moment else None
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _clamped(wait: timedelta) -> timedelta:
    return min(max(wait, SHORTEST), LONGEST)


def _backoff(errors: int) -> timedelta:
    return _clamped(SHORTEST * 2 ** min(errors - 1, _MAX_EXPONENT))


def _validator(headers: Mapping[str, str], name: str) -> str | None:
    """A header as it may be sent back: what is not plain ASCII could not be sent at all."""
    value = headers.get(name, "").strip()
    return value if value.isascii() and value.isprintable() and 0 < len(value) <= MAX_VALIDATOR_CHARS else None


def _adopted(state: FetchState) -> bool:
    return state.moved_seen >= ADOPT_AFTER and state.moved_seen % RECHECK_EVERY != 0


def _moved(state: FetchState, answer: Answer) -> tuple[str | None, int]:
    """(target, sightings in a row) of the permanent redirect after this answer."""
    if address(state, answer.url) != answer.url:  # the target itself was asked, and is well
        return state.moved_to, state.moved_seen + 1
    target = answer.moved[-1] if answer.moved else None
    if target is None or target == answer.url or (answer.url.startswith("https:") and not target.startswith("https:")):
        return None, 0
    again = state.url == answer.url and state.moved_to == target
    return target, state.moved_seen + 1 if again else 1
