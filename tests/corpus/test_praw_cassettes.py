"""Our parsers over all that Reddit answered while praw's tests were recorded, between 2015 and now.

A recording ("cassette") is a list of requests with their answers: listings, threads, users, errors, pages, and empty
bodies. Every listing of submissions (t3) in them, wherever it stands, is what our Reddit source gets: each submission
comes out or is counted with its reason, which is found again here independently and counted in ``FATES``.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from ingest.observation import MAX_ITEMS, title_line
from tests.ingest.fakes import source
from tests.ingest.test_all_sources import SAMPLES, Sample, keep_promises, survives
from trendrag.text import normal_form

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
REDDIT = source('id = "corpus"\ntype = "reddit"\nsubreddit = "corpus"')

FILES, ANSWERS = 643, 2_798
FATES = Counter({"kept": 23_303, "marked for adults": 163, "no usable title": 5, "not a post": 25_206})
"""Of 23,471 submissions; what is no post are comments, messages, moderators' actions and the like."""


@pytest.fixture(scope="module")
def answers(cassettes: Mapping[str, bytes]) -> list[bytes]:
    """The bodies of all answers."""
    assert len(cassettes) == FILES
    return [
        interaction["response"]["body"]["string"].encode("utf-8", "surrogatepass")
        for recorded in cassettes.values()
        for interaction in json.loads(recorded)["interactions"]
    ]


def listings(data: Any) -> Iterator[dict[str, Any]]:
    """All listings within ``data``, those inside of others too."""
    inner = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    if isinstance(data, dict) and data.get("kind") == "Listing":
        yield data
    for each in inner:
        yield from listings(each)


def decoded(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except ValueError:
        return None


def fates(children: list[Any]) -> tuple[Counter[str], list[tuple[str, int]]]:
    """What has to become of a listing's children, and (title, score) of those that are kept, in order."""
    counts: Counter[str] = Counter()
    kept: dict[str, tuple[str, int]] = {}
    for child in children:
        if not isinstance(child, dict) or child.get("kind") != "t3":
            counts["not a post"] += 1
            continue
        post = child["data"]
        title = title_line(post["title"])
        if post["over_18"] or "nsfw" in post["title"].lower():
            counts["marked for adults"] += 1
        elif not normal_form(title):
            counts["no usable title"] += 1
        elif post["name"] in kept:
            counts["listed twice"] += 1
        else:
            kept[post["name"]] = title, max(post["score"], 0)
    counts["kept"] = len(kept)
    return +counts, list(kept.values())


def test_no_submission_is_lost_without_a_reason(answers: list[bytes]) -> None:
    totals: Counter[str] = Counter()
    for listing in (each for answer in answers for each in listings(decoded(answer))):
        expected, kept = fates(listing["data"]["children"])
        parsed = REDDIT.parse(json.dumps(listing).encode(), NOW)
        keep_promises(parsed, NOW)
        assert sum(expected.values()) < MAX_ITEMS
        assert [(each.title, each.volume) for each in parsed.observations] == kept
        assert Counter({"kept": len(kept)}) + parsed.dropped == expected
        totals += expected
    assert totals == FATES


@pytest.mark.parametrize("each", SAMPLES, ids=[f"{each.kind}-{n}" for n, each in enumerate(SAMPLES)])
def test_no_parser_fails_on_any_answer_in_a_new_way(answers: list[bytes], each: Sample) -> None:
    assert len(answers) == ANSWERS
    for answer in set(answers):
        survives(each, answer, NOW)
