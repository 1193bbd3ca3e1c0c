"""Shows caption events on a terminal: text as it streams, trend words lit up, and where each trend comes from.

Model and trend text is untrusted: what could steer a terminal is replaced, one character for one, so that spans stay.
"""

import unicodedata
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from trendrag.text import age
from trendrag.types import (
    CandidateDone,
    CandidateFailed,
    CaptionEvent,
    Delta,
    Described,
    Done,
    Failed,
    Highlight,
    Judged,
    SnapshotInfo,
    Trend,
    TrendsRetrieved,
)

LIT = "bold black on bright_yellow"


def harmless(text: str) -> str:
    """``text`` with control and format characters replaced by "·", except new lines and emoji joiners."""
    return "".join(
        char if char in "\n\u200c\u200d" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co") else "·"
        for char in text
    )


class CaptionView:
    """What a person sees of one request. Feed it every event, then print ``footer``."""

    def __init__(self, candidates: int) -> None:
        self._texts = [""] * candidates
        self._spans: list[list[Highlight]] = [[] for _ in range(candidates)]
        self._finished: dict[int, CandidateDone] = {}
        self._failed: dict[int, CandidateFailed] = {}
        self._trends: dict[str, Trend] = {}
        self._snapshot: SnapshotInfo | None = None
        self._reason: str | None = None
        self._judged: Judged | None = None
        self._status = "Looking at the photo …"
        self.outcome: Done | Failed | None = None

    def show(self, event: CaptionEvent) -> None:
        match event:
            case Described(text=text, source=source):
                seen = f"I see: {harmless(text)}. " if text and source != "note" else ""
                self._status = f"{seen}Finding trends that fit …"
            case TrendsRetrieved():
                self._trends = {found.trend.id: found.trend for found in event.trends}
                self._snapshot, self._reason, self._judged = event.snapshot, event.reason, event.judged
                self._status = "Writing …"
            case Delta():
                self._texts[event.candidate] += event.text
            case Highlight():
                self._spans[event.candidate].append(event)
            case CandidateDone():
                self._finished[event.candidate] = event
            case CandidateFailed():
                self._failed[event.candidate] = event
            case Done() | Failed():
                self.outcome = event

    def __rich__(self) -> RenderableType:
        lines: list[RenderableType] = []
        for number, caption in enumerate(self._texts):
            text = Text(harmless(caption))
            for span in self._spans[number]:
                text.stylize(LIT, span.start, span.end)
            if failed := self._failed.get(number):
                text = Text(harmless(failed.message), style="red")
            if len(self._texts) > 1:
                text = Text(f"{number + 1}. ", style="dim").append_text(text)
            lines.append(text)
        if self.outcome is None:
            lines.append(Text(self._status, style="dim"))
        return Group(*lines)

    def footer(self) -> RenderableType:
        """Where the mentioned trends come from, how old they are, and who wrote."""
        lines: list[Text] = []
        if self._snapshot and self._snapshot.warning:
            lines.append(Text(harmless(self._snapshot.warning), style="yellow"))
        if self._judged == "failed":
            lines.append(Text("The model could not look at the trends before they were offered.", style="yellow"))
        lines += [Text(remark, style="yellow") for remark in self._remarks()]
        mentioned = dict.fromkeys(span.trend_id for spans in self._spans for span in spans)
        lines += [self._provenance(self._trends[trend_id]) for trend_id in mentioned if trend_id in self._trends]
        if not self._trends and self._reason:
            lines.append(Text(harmless(self._reason), style="dim"))
        if isinstance(self.outcome, Done):
            lines.append(Text(" · ".join(self._facts(self.outcome)), style="dim"))
        return Group(*lines)

    def _remarks(self) -> list[str]:
        """What each caption is not as it was asked to be."""
        remarks: list[str] = []
        for number, done in sorted(self._finished.items()):
            said = [f"does not say {harmless(words)!r}" for words in done.missing]
            said += [f"says {harmless(words)!r} all the same" for words in done.unwanted]
            said += ["was cut: the model wrote more than fits"] if done.cut else []
            said += [f"is a draft by {done.model}: the model could not write it"] if done.degraded else []
            remarks += [f"Caption {number + 1} {remark}." for remark in said]
        return remarks

    def _provenance(self, trend: Trend) -> Text:
        line = Text().append(harmless(trend.phrase), style=LIT).append(f" {trend.stage}")
        if self._snapshot and self._snapshot.origin == "live":
            line.append(f", last seen {age(datetime.now(UTC) - trend.last_seen)} ago")
        else:  # an age in a sample would say something about today
            line.append(f", seen {trend.last_seen:%Y-%m-%d %H:%M} UTC")
        for evidence in trend.evidence[:2]:
            line.append(f"\n  {harmless(evidence.source)}: {harmless(evidence.title)}", style="dim")
            if evidence.url:
                line.append(f"\n  {harmless(evidence.url)}", style="dim")
        return line

    def _facts(self, done: Done) -> list[str]:
        facts = [self._snapshot.label] if self._snapshot else []
        facts.append(f"draft by {done.model}" if done.draft else done.model)
        sure = [end.confidence for _, end in sorted(self._finished.items()) if end.confidence is not None]
        if sure and not done.draft:  # a grammar forces wording that the model would not have chosen
            facts.append("confidence " + ", ".join(f"{confidence:.2f}" for confidence in sure))
        facts.append(f"{done.timings.total:.1f} s")
        return facts


async def watch(events: AsyncIterator[CaptionEvent], candidates: int, console: Console) -> Done | Failed | None:
    """Shows the events until they end; returns how they ended."""
    view = CaptionView(candidates)
    if console.is_terminal:
        with Live(view, console=console, refresh_per_second=20, transient=False, vertical_overflow="visible") as live:
            async for event in events:
                view.show(event)
                live.update(view)
    else:
        async for event in events:
            view.show(event)
        console.print(view)
    console.print(view.footer())
    return view.outcome
