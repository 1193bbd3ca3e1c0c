"""Events put together, for answers that come whole."""

from dataclasses import dataclass, field

from trendrag.types import (
    CandidateDone,
    CandidateFailed,
    CaptionEvent,
    Described,
    Highlight,
    TrendsRetrieved,
)


@dataclass(slots=True)
class Collected:
    """What a request's events have told so far."""

    description: str = ""
    trends: TrendsRetrieved | None = None
    highlights: dict[int, list[Highlight]] = field(default_factory=dict)
    finished: dict[int, CandidateDone] = field(default_factory=dict)
    failed: list[CandidateFailed] = field(default_factory=list)

    def add(self, event: CaptionEvent) -> None:
        match event:
            case Described():
                self.description = event.text
            case TrendsRetrieved():
                self.trends = event
            case Highlight():
                self.highlights.setdefault(event.candidate, []).append(event)
            case CandidateDone():
                self.finished[event.candidate] = event
            case CandidateFailed():
                self.failed.append(event)
            case _:
                pass
