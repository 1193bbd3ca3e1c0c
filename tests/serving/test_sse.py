"""The parser of server-sent events: what a stream says does not depend on how the network cut it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.models.sse import MAX_EVENT_BYTES, EventParser, EventTooLong

STREAMS = st.lists(
    st.one_of(
        st.sampled_from(
            [b"\n", b"\n\n", b"\r\n", b"\r\n\r\n", b": ping\n\n", b"data:", b"data: ", b"data: [DONE]\n\n"]
        ),
        st.binary(max_size=12),
        st.text(max_size=8).map(str.encode),
    ),
    max_size=24,
).map(b"".join)


def parsed(*pieces: bytes) -> list[bytes]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


@given(STREAMS, st.data())
def test_any_split_of_the_bytes_gives_the_same_events(stream: bytes, data: st.DataObject) -> None:
    places = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    cuts = [0, *places, len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(cuts)]
    # A last CR may be half of a line's end, so what it ends is known only when more comes.
    assert parsed(*pieces, b"\n\n\n") == parsed(stream, b"\n\n\n")


@given(
    st.lists(st.binary(max_size=20).filter(lambda data: not set(data) & set(b"\r\n"))),
    st.sampled_from([b"\n", b"\r\n"]),
)
def test_every_event_comes_out_once_whole_and_in_order(events: list[bytes], end: bytes) -> None:
    stream = b"".join(b"data: " + event + end + end for event in events)
    assert parsed(*(bytes([byte]) for byte in stream)) == events


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b": still here\n\ndata: a\n\n", [b"a"]),
        (b"event: x\nid: 7\ndata: a\nretry: 3\n\n", [b"a"]),
        (b"data:a\ndata: b\n\n", [b"a\nb"]),
        (b"data\n\n", [b""]),
        (b"data: unfinished\n", []),
        (b"database: a\n\n", []),
    ],
)
def test_fields_of_the_standard(stream: bytes, events: list[bytes]) -> None:
    assert parsed(stream) == events


def test_an_event_without_an_end_does_not_fill_memory() -> None:
    parser = EventParser()
    with pytest.raises(EventTooLong):
        for _ in range(MAX_EVENT_BYTES // 4096 + 2):
            parser.feed(b"x" * 4096)
