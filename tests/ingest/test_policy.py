from dataclasses import replace
from datetime import datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.policy import (
    ADOPT_AFTER,
    JITTER,
    LONGEST,
    RECHECK_EVERY,
    SHORTEST,
    Answer,
    Failure,
    FetchState,
    address,
    after_answer,
    after_error,
    after_outage,
    conditions,
    due,
    fresh_for,
    is_outage,
    unchanged,
)
from tests.ingest.fakes import HOUR, NOW

MINUTE = timedelta(minutes=1)
URL, ELSEWHERE = "https://a.example/feed", "https://b.example/feed"
DOWN = Failure("no answer", answered=False)


def date(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)


def answer(
    checksum: str | None = "1",
    every: timedelta = 15 * MINUTE,
    moved: tuple[str, ...] = (),
    url: str = URL,
    **headers: str,
) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(url, named, every, checksum, None if checksum is None else b"body", moved)


def failure(status: int, **headers: str) -> Failure:
    return Failure(str(status), status, {name.replace("_", "-"): value for name, value in headers.items()})


def wait_of(state: FetchState) -> timedelta:
    assert state.next_due is not None
    return state.next_due - NOW


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, 15 * MINUTE),
        ({"cache-control": "public, max-age=60"}, 15 * MINUTE),
        ({"cache-control": "public, MAX-AGE = 3600, s-maxage=9"}, HOUR),
        ({"cache-control": 'max-age="3600"'}, HOUR),
        ({"cache-control": "s-maxage=3600"}, 15 * MINUTE),  # meant for shared caches, not for us
        ({"cache-control": "x-max-age=3600"}, 15 * MINUTE),
        ({"cache-control": "max-age=999999999"}, LONGEST),
        ({"cache-control": "max-age=99999999999999999999"}, 15 * MINUTE),
        ({"cache-control": "no-cache"}, 15 * MINUTE),
        ({"expires": date(NOW + 2 * HOUR)}, 2 * HOUR),
        ({"expires": date(NOW + 2 * HOUR), "cache-control": "max-age=3600"}, 2 * HOUR),
        ({"expires": date(NOW - 2 * HOUR)}, 15 * MINUTE),
        ({"expires": "0"}, 15 * MINUTE),
        # A copy that a cache has kept for a while is good for the rest only.
        ({"cache-control": "max-age=7200", "age": "3600"}, HOUR),
        ({"expires": date(NOW + 3 * HOUR), "date": date(NOW), "age": "3600"}, 2 * HOUR),
        ({"cache-control": "max-age=3600", "age": "99999"}, 15 * MINUTE),
        ({"cache-control": "max-age=3600", "age": "-5"}, HOUR),
        # By the server's own clock, which is a day ahead here, it is one hour.
        ({"expires": date(NOW + 25 * HOUR), "date": date(NOW + 24 * HOUR)}, HOUR),
    ],
)
def test_after_an_answer_the_longest_wish_counts(headers: dict[str, str], wait: timedelta) -> None:
    assert wait_of(after_answer(FetchState(), replace(answer(), headers=headers), NOW, 0)) == wait


def test_the_pause_that_a_feed_names_counts_like_the_servers_also_while_it_is_unchanged() -> None:
    said = after_answer(FetchState(), replace(answer(), ttl=2 * HOUR), NOW, 0.5)
    assert wait_of(said) == 2 * HOUR
    assert wait_of(after_answer(said, answer(None), NOW, 0)) == 2 * HOUR  # 304
    assert wait_of(after_answer(said, answer(), NOW, 0)) == 2 * HOUR  # the same bytes, which are not read again
    assert wait_of(after_answer(said, answer("2"), NOW, 0)) == 15 * MINUTE
    assert wait_of(after_answer(said, replace(answer("2"), ttl=900 * HOUR), NOW, 0)) == LONGEST
    assert wait_of(after_answer(said, answer(cache_control="max-age=10800"), NOW, 0)) == 3 * HOUR


@pytest.mark.parametrize(("every", "wait"), [(MINUTE, SHORTEST), (HOUR, HOUR), (90 * HOUR, LONGEST)])
def test_waits_are_clamped(every: timedelta, wait: timedelta) -> None:
    assert wait_of(after_answer(FetchState(), answer(every=every), NOW, 0)) == wait


def test_jitter_shortens_our_own_interval_but_not_what_the_server_asked_for() -> None:
    assert wait_of(after_answer(FetchState(), answer(every=HOUR), NOW, 0.5)) == 57 * MINUTE
    assert wait_of(after_answer(FetchState(), answer(every=HOUR, cache_control="max-age=3600"), NOW, 0.5)) == HOUR


@pytest.mark.parametrize(
    ("error", "wait", "told"),
    [
        (failure(429, retry_after="3600"), HOUR, True),
        (failure(503, retry_after=date(NOW + HOUR)), HOUR, True),
        (failure(503, retry_after=date(NOW + 2 * HOUR), date=date(NOW + HOUR)), HOUR, True),
        (failure(429, retry_after="1"), SHORTEST, True),
        (failure(429, retry_after="99999999999999"), LONGEST, True),
        (failure(429, retry_after=date(NOW - HOUR)), SHORTEST, True),
        (failure(429, retry_after="soon"), SHORTEST, False),
        (failure(429, retry_after="-5"), SHORTEST, False),
        (failure(429), SHORTEST, False),
        (failure(500, retry_after="3600"), SHORTEST, False),  # it has no meaning there
        (failure(404), SHORTEST, False),
        (DOWN, SHORTEST, False),
    ],
)
def test_after_an_error(error: Failure, wait: timedelta, told: bool) -> None:
    state = after_error(FetchState(), error, NOW, 0)
    assert (wait_of(state), state.told_to_wait, state.errors) == (wait, told, 1)
    assert not due(state, NOW + wait - MINUTE)
    assert due(state, NOW + wait)


def test_errors_double_the_wait_up_to_a_day() -> None:
    state, waits = FetchState(), []
    for _ in range(11):
        state = after_error(state, failure(500), NOW, 0)
        waits.append(wait_of(state) / MINUTE)
    assert waits == [5, 10, 20, 40, 80, 160, 320, 640, 1280, 1440, 1440]


def test_retry_after_never_shortens_the_backoff() -> None:
    state = FetchState(errors=6)
    assert wait_of(after_error(state, failure(503, retry_after="1"), NOW, 0)) == 320 * MINUTE


def test_all_overrules_our_times_but_not_the_sources_wishes() -> None:
    fresh = after_answer(FetchState(), answer(), NOW, 0)
    failed = after_error(FetchState(), failure(500), NOW, 0)
    told = after_error(FetchState(), failure(429, retry_after="600"), NOW, 0)
    gone = after_error(FetchState(), failure(410), NOW, 0)
    assert [due(each, NOW) for each in (fresh, failed, told, gone)] == [False] * 4
    assert [due(each, NOW, everything=True) for each in (fresh, failed, told, gone)] == [True, True, False, False]
    assert [due(each, NOW + HOUR) for each in (fresh, failed, told, gone)] == [True, True, True, False]


def test_a_state_written_by_a_clock_far_ahead_does_not_keep_the_source_away() -> None:
    state = after_answer(FetchState(), answer(), NOW + timedelta(days=3650), 0)
    assert due(state, NOW)


def test_what_is_kept_makes_the_next_request_conditional() -> None:
    state = after_answer(FetchState(), answer(etag='W/"7"', last_modified="Fri, 20 Nov 2026 08:00:00 GMT"), NOW, 0)
    asked = {"If-None-Match": 'W/"7"', "If-Modified-Since": "Fri, 20 Nov 2026 08:00:00 GMT"}
    assert conditions(state, URL, live=True) == asked
    assert conditions(state, ELSEWHERE, live=True) == {}  # they are of the other address
    # Without the body a 304 could not be taken as a list; dated items don't need it.
    assert conditions(replace(state, body=None), URL, live=True) == {}
    assert conditions(replace(state, body=None), URL, live=False) == asked
    assert conditions(FetchState(), URL, live=False) == {}


@pytest.mark.parametrize("etag", ["", '"caf\xe9"', '"a\x00b"', '"' + "a" * 600 + '"'])
def test_a_validator_that_could_not_be_sent_is_not_kept(etag: str) -> None:
    assert conditions(after_answer(FetchState(), answer(etag=etag), NOW, 0), URL, live=False) == {}


def test_unchanged_is_a_304_or_the_same_bytes_from_the_same_address() -> None:
    state = after_answer(FetchState(), answer("1", etag='"1"'), NOW, 0)
    later = NOW + HOUR
    cases = [(answer(None), True), (answer("1"), True), (answer("2"), False), (answer("1", url=ELSEWHERE), False)]
    for said, same in cases:
        after = after_answer(state, said, later, 0)
        assert unchanged(state, said) is same
        assert (after.last_success, after.last_changed) == (later, NOW if same else later)
    not_modified = after_answer(state, answer(None), later, 0)
    assert (not_modified.etag, not_modified.checksum, not_modified.body) == ('"1"', "1", b"body")
    assert after_answer(state, answer(None, etag='"2"'), later, 0).etag == '"2"'
    assert after_answer(state, answer("1"), later, 0).etag is None  # a 200 without one has none


def test_an_error_keeps_what_the_last_good_answer_taught() -> None:
    state = after_answer(FetchState(), answer(etag='"1"'), NOW, 0)
    after = after_error(state, failure(500), NOW + HOUR, 0)
    assert conditions(after, URL, live=True) == conditions(state, URL, live=True) != {}
    assert (after.last_attempt, after.last_success, after.last_changed) == (NOW + HOUR, NOW, NOW)


def seen_moving(times: int, moved: tuple[str, ...] = (ELSEWHERE,)) -> FetchState:
    state = FetchState()
    for _ in range(times):
        state = after_answer(state, answer(moved=moved), NOW, 0)
    return state


def test_a_permanent_redirect_is_adopted_after_repeated_sightings() -> None:
    assert address(seen_moving(ADOPT_AFTER - 1), URL) == URL
    assert address(seen_moving(ADOPT_AFTER), URL) == ELSEWHERE
    assert address(seen_moving(ADOPT_AFTER), "https://a.example/other") == "https://a.example/other"
    assert address(seen_moving(ADOPT_AFTER, ("https://x.example/", ELSEWHERE)), URL) == ELSEWHERE


@pytest.mark.parametrize("other", [(), ("https://c.example/",)], ids=["none", "another target"])
def test_sightings_must_be_in_a_row(other: tuple[str, ...]) -> None:
    state = after_answer(seen_moving(ADOPT_AFTER - 1), answer(moved=other), NOW, 0)
    assert address(after_answer(state, answer(moved=(ELSEWHERE,)), NOW, 0), URL) == URL


def test_a_redirect_that_gives_encryption_up_is_followed_but_never_adopted() -> None:
    assert address(seen_moving(50, ("http://a.example/feed",)), URL) == URL


def test_an_adopted_address_is_checked_now_and_then_and_forgotten_when_the_redirect_stops() -> None:
    state = seen_moving(ADOPT_AFTER)
    for _ in range(ADOPT_AFTER, RECHECK_EVERY):
        assert address(state, URL) == ELSEWHERE
        state = after_answer(state, answer(), NOW, 0)
    assert address(state, URL) == URL
    assert address(after_answer(state, answer(moved=(ELSEWHERE,)), NOW, 0), URL) == ELSEWHERE
    stopped = after_answer(state, answer(), NOW, 0)
    assert (stopped.moved_to, address(stopped, URL)) == (None, URL)


@pytest.mark.parametrize("status", [404, 410, 500])
def test_an_error_at_an_adopted_address_leads_back_to_the_entrys_own(status: int) -> None:
    state = after_error(seen_moving(ADOPT_AFTER), failure(status), NOW, 0)
    assert (address(state, URL), state.muted, state.errors) == (URL, None, 1)
    # Before it is adopted an error says nothing of the redirect.
    almost = after_error(seen_moving(ADOPT_AFTER - 1), failure(500), NOW, 0)
    assert address(after_answer(almost, answer(moved=(ELSEWHERE,)), NOW, 0), URL) == ELSEWHERE


def test_gone_mutes_until_the_entry_changes() -> None:
    state = after_error(FetchState(), failure(410), NOW, 0)
    assert state.muted is not None
    assert not due(state, NOW + timedelta(days=400), everything=True)


def test_an_outage_of_our_own_is_nobodys_error() -> None:
    well, down_for_long = FetchState(), FetchState(errors=7)
    assert is_outage([("a", well, DOWN), ("b", down_for_long, DOWN)])
    assert not is_outage([("a", well, DOWN), ("b", well, failure(500))])
    assert not is_outage([("a", well, DOWN), ("b", well, None)])
    assert not is_outage([("a", well, DOWN), ("a", well, DOWN)])  # one publisher may be down
    assert not is_outage([("a", down_for_long, DOWN), ("b", down_for_long, DOWN)])
    assert not is_outage([])
    state = after_outage(down_for_long, DOWN, NOW, 0)
    assert (state.errors, wait_of(state)) == (7, SHORTEST)


JITTERS = st.floats(0, 1, exclude_max=True)
TEXTS = st.one_of(
    st.text(max_size=60),
    st.integers(-(10**12), 10**30).map(str),
    st.timedeltas(timedelta(days=-10_000), timedelta(days=60_000)).map(lambda ahead: date(NOW + ahead)),
    st.integers(0, 10**12).map(lambda number: f"max-age={number}"),
)
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "cache-control", "expires", "date", "etag", "last-modified"]), TEXTS
)
ANSWERS = st.builds(
    Answer,
    st.sampled_from([URL, ELSEWHERE]),
    HEADERS,
    st.timedeltas(timedelta(seconds=1), timedelta(days=30)),
    st.sampled_from([None, "1", "2"]),
    st.just(b""),
    st.sampled_from([(), (ELSEWHERE,)]),
)
FAILURES = st.builds(Failure, st.just("x"), st.sampled_from([None, 304, 403, 404, 429, 500, 503]), HEADERS)


@given(st.lists(st.tuples(st.one_of(ANSWERS, FAILURES), JITTERS), min_size=1, max_size=15))
def test_whatever_happens_the_next_time_is_minutes_to_a_day_ahead(
    events: list[tuple[Answer | Failure, float]],
) -> None:
    state = FetchState()
    for event, jitter in events:
        if isinstance(event, Answer):
            state = after_answer(state, event, NOW, jitter)
            assert (state.errors, state.reason, state.told_to_wait) == (0, None, False)
            assert SHORTEST <= wait_of(state) <= LONGEST
        else:
            before = state.errors
            state = after_error(state, event, NOW, jitter)
            assert state.errors == before + 1
            assert SHORTEST <= wait_of(state) <= LONGEST * (1 + JITTER)
        assert not due(state, NOW)
        assert due(state, NOW + LONGEST * (1 + JITTER))


@given(st.integers(0, 10_000), JITTERS, JITTERS)
def test_one_more_error_never_shortens_the_wait(errors: int, one: float, other: float) -> None:
    fewer = after_error(FetchState(errors=errors), failure(500), NOW, one)
    more = after_error(FetchState(errors=errors + 1), failure(500), NOW, other)
    if wait_of(fewer) < LONGEST:
        assert wait_of(fewer) < wait_of(more)
    else:
        assert wait_of(more) >= LONGEST


@given(HEADERS)
def test_no_header_makes_an_answer_good_for_less_than_nothing(headers: dict[str, str]) -> None:
    assert fresh_for(headers, NOW) >= timedelta()
