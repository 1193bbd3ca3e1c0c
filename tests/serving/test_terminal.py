"""What a terminal shows of captions that are not as they were asked to be."""

from collections.abc import AsyncIterator
from io import StringIO

from rich.console import Console

from serving.terminal import watch
from trendrag.types import CandidateDone, CandidateFailed, CaptionEvent, Delta, Done, Timings, Usage


async def test_it_says_which_caption_failed_and_what_the_others_lack() -> None:
    async def events() -> AsyncIterator[CaptionEvent]:
        yield Delta(candidate=0, text="Tea.")
        yield Delta(candidate=1, text="Half a")
        yield CandidateFailed(candidate=1, code="model_timeout", message="It took \x1b[31mtoo long.")
        yield CandidateDone(
            candidate=0,
            text="Tea.",
            cut=True,
            missing=("my\x1b shop",),
            unwanted=("tea",),
            degraded=True,
            model="small",
        )
        yield Done(usage=Usage(), timings=Timings(total=1), snapshot_id=None, model="big", draft=True, degraded=True)

    shown = StringIO()
    await watch(events(), 2, Console(file=shown, width=200, highlight=False))
    text = shown.getvalue()
    assert "1. Tea." in text
    assert "2. It took ·[31mtoo long." in text
    assert "Half a" not in text
    assert "Caption 1 does not say 'my· shop'." in text
    assert "Caption 1 says 'tea' all the same." in text
    assert "Caption 1 was cut" in text
    assert "Caption 1 is a draft by small" in text
    assert "\x1b" not in text
