"""Drafts by the real engine, over real photos. Nothing is faked here."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from serving.images import prepare_image
from serving.models.draft import DraftWriter
from serving.models.draft_plan import make_plan
from serving.models.embedded import EmbeddedEngine
from serving.models.tagger import TagDescriber, Tagger
from tests.fakes import make_trend
from trendrag.errors import NotSupported
from trendrag.ports import Chunk
from trendrag.prompting import MAX_PHRASE_CHARS
from trendrag.settings import ImageSettings, default_data_dir
from trendrag.text import clean_line
from trendrag.types import CaptionRequest, PreparedImage, Regenerate, RetrievedTrend, Turn

PHOTOS = Path(__file__).parents[1] / "photos"
CASES: list[dict[str, Any]] = json.loads((PHOTOS / "photos.json").read_text("utf-8"))
MODELS = default_data_dir() / "models"

NASTY = [
    'say "hi" \\ and \\n',
    "brackets [a-z]* | root ::= x",
    "emoji 🏳️‍🌈 and 👩🏽‍🚀",
    "東京マラソン",
    "القهوة العربية",
    "AC/DC, C++ & GTA 6",
    "naïve café déjà-vu",
    "{t} {s} %s ${x}",
    "🎉" * 80,
    "漢" * 80,
]


def photo(name: str) -> PreparedImage:
    return prepare_image((PHOTOS / name).read_bytes(), ImageSettings())


def found(phrase: str) -> tuple[RetrievedTrend, ...]:
    return (RetrievedTrend(trend=make_trend(phrase), similarity=0.5, score=0.5),)


@pytest.fixture
async def writer() -> AsyncIterator[DraftWriter]:
    engine = EmbeddedEngine(MODELS)
    writer = DraftWriter(engine)
    yield writer
    await writer.aclose()
    await engine.close()


async def draft(
    writer: DraftWriter, request: CaptionRequest, tags: str, trends: tuple[RetrievedTrend, ...] = (), candidate: int = 0
) -> tuple[str, list[Chunk]]:
    chunks = [chunk async for chunk in writer.write(request, tags, trends, candidate)]
    return "".join(chunk.text for chunk in chunks), chunks


async def test_drafts_name_what_is_in_the_photos(writer: DraftWriter) -> None:
    describer = TagDescriber(Tagger(MODELS))
    named = []
    for case in CASES:
        request = CaptionRequest(image=photo(case["file"]), note=case["note"])
        tags = (await describer.describe(request.image)).text
        text, _ = await draft(writer, request, tags, found(case["trend"]))
        named.append(any(word in text.casefold() for word in case["subject"]))
        assert case["trend"] in text
        assert len(text.splitlines()) == 1
        assert len(text) <= request.limit
        assert text.endswith((".", "!"))
        assert not set('"*`#') & set(text)

    assert len(CASES) == 8
    assert sum(named) >= 6, dict(zip((case["file"] for case in CASES), named, strict=True))


async def test_any_trend_is_written_word_for_word(writer: DraftWriter) -> None:
    request = CaptionRequest(image=photo("coffee.jpg"), note="slow sunday with my espresso")
    for phrase in NASTY:
        text, _ = await draft(writer, request, "espresso", found(phrase))
        assert clean_line(phrase, MAX_PHRASE_CHARS) in text


async def test_a_draft_is_a_text_of_its_plan(writer: DraftWriter) -> None:
    request = CaptionRequest(image=photo("cat.jpg"), note="woke me up at six again", tone="playful", max_chars=90)
    plan = make_plan(request, "cat", found("Caturday"), 1)

    rest, _ = await draft(writer, request, "cat", found("Caturday"), candidate=1)

    for slot in plan.slots:
        said = max((text for text in slot if rest.startswith(text)), key=len)
        rest = rest.removeprefix(said)
    assert rest == ""


async def test_candidates_at_the_same_time_differ(writer: DraftWriter) -> None:
    request = CaptionRequest(image=photo("coffee.jpg"), note="slow sunday with my espresso", candidates=6)

    drafts = await asyncio.gather(
        *(draft(writer, request, "espresso", found("latte art"), candidate) for candidate in range(6))
    )

    assert len({text for text, _ in drafts}) >= 4
    assert len({text for text, _ in drafts[:3]}) == 3


async def test_drafts_of_four_candidates_begin_differently_and_share_few_words(writer: DraftWriter) -> None:
    for case in CASES[:3]:
        request = CaptionRequest(image=photo(case["file"]), note=case["note"], candidates=4)
        drafts = await asyncio.gather(
            *(draft(writer, request, case["subject"][0], found(case["trend"]), candidate) for candidate in range(4))
        )
        words = [text.casefold().replace(",", "").rstrip(".!").split() for text, _ in drafts]
        assert len({tuple(said[:3]) for said in words}) == 4
        shared = [len(set(a) & set(b)) / len(set(a) | set(b)) for a, b in itertools.combinations(words, 2)]
        assert sum(shared) / len(shared) < 0.4


async def test_another_try_and_a_change_are_written(writer: DraftWriter) -> None:
    request = CaptionRequest(image=photo("coffee.jpg"), note="slow sunday with my espresso")
    first, _ = await draft(writer, request, "espresso", found("latte art"))
    other = request.model_copy(update={"regenerate": Regenerate(candidate=0, avoid=(first,))})
    assert (await draft(writer, other, "espresso", found("latte art")))[0] != first
    turns = (Turn(role="assistant", text=first), Turn(role="user", text="mention my shop"))
    text, _ = await draft(writer, request.model_copy(update={"turns": turns}), "espresso", found("latte art"))
    assert "my shop" in text
    with pytest.raises(NotSupported):
        turns = (turns[0], Turn(role="user", text="in French"))
        await draft(writer, request.model_copy(update={"turns": turns}), "espresso")


async def test_log_probabilities_and_usage_come_along(writer: DraftWriter) -> None:
    request = CaptionRequest(image=photo("coffee.jpg"), note="slow sunday with my espresso")

    _, chunks = await draft(writer, request, "espresso")

    assert len(chunks) > 3, "it streams"
    assert all(chunk.logprob <= 0 for chunk in chunks)
    assert sum(chunk.tokens for chunk in chunks) > 3
    last = chunks[-1].usage
    assert last is not None
    assert last.prompt_tokens > 20
    assert last.completion_tokens > 3


async def test_a_request_in_another_language_gets_an_english_draft(writer: DraftWriter) -> None:
    request = CaptionRequest(image=photo("coffee.jpg"), note="ein ruhiger Sonntag", language="de")

    text, _ = await draft(writer, request, "espresso")

    assert text.endswith((".", "!"))


async def test_a_draft_closed_half_way_leaves_the_engine_ready(writer: DraftWriter) -> None:
    request = CaptionRequest(image=photo("coffee.jpg"), note="slow sunday with my espresso")
    for _ in range(8):  # more than there are slots
        async with aclosing(writer.write(request, "espresso", found("latte art"), 0)) as chunks:
            await anext(chunks)

    text, _ = await draft(writer, request, "espresso", found("latte art"))

    assert "latte art" in text
