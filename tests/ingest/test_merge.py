from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.merge import Topic, merge
from ingest.observation import Observation
from ingest.phrases import headline_text, name_spans, quoted_title, spelled_hashtag, usable_name
from tests.ingest.fakes import NOW, seen


def topics(*observations: Observation) -> dict[str, Topic]:
    return {topic.phrase: topic for topic in merge(observations).topics}


def test_a_hashtag_is_the_phrase_it_spells() -> None:
    found = topics(
        seen("#worldcup", "hashtag", source="m", family="mastodon"), seen("World Cup"), seen("world cup", source="b")
    )
    (topic,) = found.values()
    assert (topic.phrase, topic.aliases) == ("World Cup", ("#worldcup",))
    assert {member.family for member in topic.members} == {"mastodon", "fam-a"}


def test_the_id_does_not_depend_on_the_spelling() -> None:
    (one,) = topics(seen("Café society")).values()
    (other,) = topics(seen("#CafeSociety", "hashtag")).values()
    assert one.id == other.id


@pytest.mark.parametrize(
    ("tag", "phrase"),
    [
        ("#SilentSunday", "Silent Sunday"),
        ("#caturday", "#caturday"),
        ("#Oscars2026", "Oscars 2026"),
        ("#slow_morning", "slow morning"),
    ],
)
def test_a_hashtag_alone_is_spelled_out_where_its_words_show(tag: str, phrase: str) -> None:
    assert spelled_hashtag(tag) == phrase
    assert phrase in topics(seen(tag, "hashtag"))


def test_a_headline_becomes_evidence_of_the_topic_that_it_names() -> None:
    headline = "How a night rocket launch was filmed from a very small kayak"
    found = topics(seen("night rocket launch"), seen(headline, "headline", source="b", family="fam-b"))
    (topic,) = found.values()
    assert headline in [each.title for each in topic.evidence]
    assert topic.summary == headline


def test_a_generic_word_does_not_gather_every_headline_but_is_judged_with_them() -> None:
    found = topics(
        seen("#music", "hashtag"),
        seen("Why music at breakfast makes the whole of the day shorter", "headline", family="b"),
        seen("Music teacher found dead after the school concert on Sunday", "headline", source="c", family="c"),
    )
    (topic,) = found.values()
    assert len(topic.members) == 1
    assert topic.context == ("Music teacher found dead after the school concert on Sunday",)


def test_long_headlines_give_a_topic_by_a_sure_name_or_one_that_another_publisher_uses() -> None:
    one = seen(
        "Orchids by lamplight as the Glasshouse Festival opens after dark tonight", "headline", source="a", family="a"
    )
    two = seen("What to wear to the Glasshouse Festival when it rains all weekend", "headline", source="b", family="b")
    same_house = seen(
        "A walk through the Glasshouse Festival with the head gardener", "headline", source="a2", family="a"
    )
    assert list(topics(one, two)) == ["Glasshouse Festival"]
    # An event's name is sure also where one publisher alone has it; other capitalised words are not.
    assert list(topics(one, same_house)) == ["Glasshouse Festival"]
    spans = [
        seen("Two cups that Amber Willow poured after a rainy walk", "headline", source="a", family="a"),
        seen("Who says that Amber Willow poured the tea, and why it matters", "headline", source="a2", family="a"),
    ]
    assert topics(*spans) == {}
    assert merge(spans).left_out == {"headline without a phrase of its own": 2}


def test_a_headline_of_a_sentence_is_no_phrase() -> None:
    for headline in (
        "I quit my job",
        "Why do cats purr",
        "Is tea back?",
        "Twelve quite ordinary ways to fold a paper boat at home",
    ):
        assert topics(seen(headline, "headline")) == {}
    assert list(topics(seen("Show HN: Offline maps on paper", "headline"))) == ["Offline maps on paper"]


@pytest.mark.parametrize(
    "name", ["w" * 41, "one two three four five six seven eight nine", "12 345", "x", "a" * 30 + " " + "b" * 60]
)
def test_what_a_caption_could_not_say_is_left_out(name: str) -> None:
    assert not usable_name(name)
    assert merge([seen(name)]).left_out == {"not usable as a phrase": 1}


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Inside “The Quiet Orchard”, read aloud everywhere", "The Quiet Orchard"),
        ("„Stille Gärten“ gewinnt", "Stille Gärten"),
        ('She said "we are all so happy now" on stage', None),
        ("The ‘old’ town", None),
    ],
)
def test_quoted_titles(text: str, title: str | None) -> None:
    assert quoted_title(text) == title


def test_text_helpers() -> None:
    assert headline_text("Ask HN: Slow software (2019)") == "Slow software"
    assert headline_text("Roof gardens bloom | The Daybook") == "Roof gardens bloom"
    assert set(name_spans("fans of the Isle of Glass met the Paper Moon Parade")) == {
        "Isle of Glass",
        "Paper Moon",
        "Paper Moon Parade",
        "Moon Parade",
    }


def test_regions_languages_and_times() -> None:
    early = NOW - timedelta(hours=5)
    (both,) = topics(
        seen("latte art", region="US", at=early), seen("latte art", source="b", region="GB", language="de")
    ).values()
    assert (both.region, both.language, both.categories) == (None, "und", ("life",))
    assert (both.first_seen, both.last_seen) == (early, NOW)
    (one,) = topics(seen("latte art", region="US")).values()
    assert (one.region, one.language) == ("US", "en")


def test_other_wordings_are_one_topic_with_all_that_was_said() -> None:
    headline = "Crowds fill the first Christmas market of the year"
    (topic,) = topics(
        seen("Christmas market", news=[headline]),
        seen("Weihnachtsmarkt", source="b", family="b", language="de"),
        seen("#christmasmarkets", "hashtag", source="c", family="c"),
        seen(headline, "headline", source="d", family="d"),
    ).values()
    assert (topic.phrase, topic.summary) == ("Christmas market", headline)
    assert topic.forms == ("christmasmarket", "christmasmarkets", "weihnachtsmarkt")
    assert set(topic.aliases) == {"#christmasmarkets", "Weihnachtsmarkt"}
    assert [member.source for member in topic.members] == ["a", "b", "c", "d"]


def test_a_headline_of_two_wordings_counts_once() -> None:
    headline = seen(
        "The Halloween costume and other Halloween costumes of the year", "headline", source="b", family="b"
    )
    (topic,) = topics(seen("Halloween costume"), seen("Halloween costumes", source="c"), headline).values()
    assert [member.source for member in topic.members].count("b") == 1


def test_a_new_wording_does_not_change_the_id() -> None:
    first = seen("Christmas market", at=NOW - timedelta(hours=3))
    later = seen("Weihnachtsmarkt", source="b", language="de", at=NOW)
    (before,) = topics(first).values()
    (after,) = topics(first, later).values()
    assert after.id == before.id
    # Also when the first wording is no longer talked of, as long as it is known when each was first seen.
    latest = seen("Christmas market", source="c", at=NOW + timedelta(hours=3))
    known = {"christmasmarket": first.at}
    assert [topic.id for topic in merge([later, latest], known).topics] == [before.id]


def test_the_summary_is_without_section_and_publisher() -> None:
    headlines = ["Is latte art over?", "Watch: Latte art champion pours a swan in nine seconds | The Daybook"]
    (topic,) = topics(seen("latte art", news=headlines)).values()
    assert topic.summary == "Latte art champion pours a swan in nine seconds"


def test_an_encyclopaedias_qualifier_is_not_part_of_the_name() -> None:
    (topic,) = topics(seen("Lantern Season (2026 film)", "article")).values()
    assert (topic.phrase, topic.qualifiers) == ("Lantern Season", ("2026 film",))


_TITLES = ["latte art", "#LatteArt", "Latte art", "World Cup", "#worldcup", "Paper Moon Parade", "café", "Cafe"]
_TITLES += ["World Cup 2026", "Weltmeisterschaft", "Moon Parade", "latte arts", "Lisbon Paper Moon Parade"]
_TITLES += ["Dancers fill the Paper Moon Parade until the last lantern goes out"]
_TITLES += ["A Paper Moon Parade for those who stayed in bed"]


@st.composite
def observations(draw: st.DrawFn) -> list[Observation]:
    titles = draw(st.lists(st.sampled_from(_TITLES) | st.text(min_size=1, max_size=20).filter(str.isalnum), max_size=8))
    found = []
    for number, title in enumerate(titles):
        kind = "hashtag" if title.startswith("#") else "headline" if len(title) > 30 else "phrase"
        found.append(seen(title, kind, source=f"s{number % 3}", family=f"f{number % 2}"))  # type: ignore[arg-type]  # a Kind
    return found


@given(observations(), st.randoms())
def test_the_order_of_observations_does_not_matter(found: list[Observation], random: object) -> None:
    mixed = list(found)
    random.shuffle(mixed)  # type: ignore[attr-defined]  # Hypothesis' Random
    assert merge(mixed) == merge(found)


@given(observations())
def test_topics_are_distinct_and_hold_only_what_was_seen(found: Sequence[Observation]) -> None:
    merged = merge(found)
    assert len({topic.id for topic in merged.topics}) == len(merged.topics)
    assert {each for topic in merged.topics for each in topic.members} <= set(found)
    assert all(topic.phrase and topic.first_seen <= topic.last_seen for topic in merged.topics)
