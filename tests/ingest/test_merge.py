from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.merge import Topic, merge
from ingest.observation import Observation
from ingest.phrases import headline_text, name_spans, quoted_title, spelled_hashtag, usable_name, whole_headline
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


def test_long_headlines_give_a_topic_only_by_a_name_that_another_publisher_uses() -> None:
    one = seen(
        "Orchids by lamplight as the Glasshouse Festival opens after dark tonight", "headline", source="a", family="a"
    )
    two = seen("What to wear to the Glasshouse Festival when it rains all weekend", "headline", source="b", family="b")
    same_house = seen(
        "A walk through the Glasshouse Festival with the head gardener", "headline", source="a2", family="a"
    )
    assert list(topics(one, two)) == ["Glasshouse Festival"]
    assert topics(one, same_house) == {}
    assert merge([one, same_house]).left_out == {"headline without a phrase of its own": 2}


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
    assert whole_headline("Winter balcony gardens")


def test_regions_languages_and_times() -> None:
    early = NOW - timedelta(hours=5)
    (both,) = topics(
        seen("latte art", region="US", at=early), seen("latte art", source="b", region="GB", language="de")
    ).values()
    assert (both.region, both.language, both.categories) == (None, "und", ("life",))
    assert (both.first_seen, both.last_seen) == (early, NOW)
    (one,) = topics(seen("latte art", region="US")).values()
    assert (one.region, one.language) == ("US", "en")


def test_an_encyclopaedias_qualifier_is_not_part_of_the_name() -> None:
    (topic,) = topics(seen("Lantern Season (2026 film)", "article")).values()
    assert (topic.phrase, topic.qualifiers) == ("Lantern Season", ("2026 film",))


_TITLES = ["latte art", "#LatteArt", "Latte art", "World Cup", "#worldcup", "Paper Moon Parade", "café", "Cafe"]
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
