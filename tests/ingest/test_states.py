from datetime import timedelta

from sqlalchemy import update

from ingest.policy import FetchState
from ingest.schema import FetchRow
from ingest.states import FetchStates
from ingest.store import ObservationStore
from tests.ingest.fakes import HOUR, NOW, source
from trendrag.settings import Settings

FEED = 'id = "feed"\ntype = "rss"\nurl = "https://a.example/feed"'
FULL = FetchState(
    url="https://a.example/feed",
    etag='"1"',
    last_modified="Fri, 20 Nov 2026 08:00:00 GMT",
    checksum="f" * 64,
    body=b"<rss/>" * 1000,
    last_attempt=NOW,
    last_success=NOW - HOUR,
    last_changed=NOW - 2 * HOUR,
    errors=3,
    reason="429",
    next_due=NOW + timedelta(minutes=40, microseconds=7),
    told_to_wait=True,
    moved_to="https://b.example/feed",
    moved_seen=5,
    muted="410 (gone for good)",
)


def test_a_state_survives_a_restart(database_settings: Settings) -> None:
    entry = source(FEED)
    first = ObservationStore.of(database_settings)
    states = FetchStates(first.engine)
    assert states.load([entry]) == {"feed": FetchState()}
    states.save(entry, FetchState(errors=1))
    states.save(entry, FULL)
    first.close()
    again = ObservationStore.of(database_settings)
    assert FetchStates(again.engine).load([entry]) == {"feed": FULL}
    again.close()


def test_editing_an_entry_starts_it_anew(store: ObservationStore) -> None:
    states = FetchStates(store.engine)
    states.save(source(FEED), FULL)
    assert states.load([source(FEED + '\nlanguage = "und"')]) == {"feed": FULL}  # says what was so before
    edited = source(FEED.replace("/feed", "/new"))
    assert states.load([edited]) == {"feed": FetchState()}
    states.save(edited, FetchState(errors=1))
    assert states.load([edited]) == {"feed": FetchState(errors=1)}


def test_a_damaged_body_is_none(store: ObservationStore) -> None:
    states = FetchStates(store.engine)
    states.save(source(FEED), FULL)
    with store.engine.begin() as connection:
        connection.execute(update(FetchRow).values(body=b"\0"))
    found = states.load([source(FEED)])["feed"]
    assert (found.body, found.etag) == (None, '"1"')
