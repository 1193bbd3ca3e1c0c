"""What one observation offers, with that by which a headline is found again."""

from collections.abc import Iterable
from dataclasses import dataclass

from ingest.observation import Observation
from ingest.offers import Offer, offer

START_BYTES = 12
"""Of a name's form in UTF-8, by which headlines that may hold it are found."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An observation with what it offers. ``starts`` is what a headline is found by: of each form that it mentions the
    first bytes, but for what others begin with."""

    seen: Observation
    offer: Offer
    starts: tuple[bytes, ...] = ()

    @property
    def headline(self) -> bool:
        return self.seen.kind == "headline"


def entry(seen: Observation) -> Entry:
    offered = offer(seen)
    return Entry(seen, offered, tuple(sorted(_starts(offered.mentions))))


def _starts(mentions: Iterable[str]) -> set[bytes]:
    ordered = sorted({form.encode()[:START_BYTES] for form in mentions})
    followed = zip(ordered, [*ordered[1:], b""], strict=False)  # nothing is followed by nothing
    return {one for one, after in followed if not after.startswith(one)}
