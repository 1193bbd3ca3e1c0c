from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.same import REASONS, Named, clash, keys, reason, same
from ingest.wording import wordings
from tests.ingest.names import names, record

BOTH = "Crowds at dawn for the {}"


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        ("halloween costume", "Halloween costumes", "words"),
        ("Mother's Day gift", "Mothers Day gifts", "words"),
        ("autumn colours", "autumn colors", "words"),
        ("Rock & Roll Hall of Fame", "Rock and Roll Hall of Fame", "words"),
        ("Straßenfest Köln", "Strassenfest Koeln", "words"),
        ("Rocky IV", "Rocky 4", "words"),
        ("The Golden Bachelor", "Golden Bachelor", "words"),
        ("Eurovision 2026", "Eurovision", "words"),
        ("Wordle hints today", "Wordle", "words"),
        ("Noël", "Weihnachten", "words"),
        ("Fußball-WM 2026", "World Cup", "words"),
        ("Arsenal vs Chelsea", "Chelsea v Arsenal", "order"),
        ("costumes for Halloween", "Halloween costumes", "order"),
        ("Marathon Berlin", "Berlin Marathon", "order"),
        ("Timothée Chalamet", "Timothee Chalomet", "spelling"),
    ],
)
def test_wordings_of_one_topic(one: str, other: str, why: str) -> None:
    assert reason(record(one), record(other)) == why


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("iPhone 17", "iPhone 18"),
        ("Rocky III", "Rocky IV"),
        ("Episode 3", "Episode 4"),
        ("Oscars 2025", "Oscars 2026"),
        ("Women's World Cup", "World Cup"),
        ("England U21", "England"),
        ("World Cup semi-final", "World Cup final"),
        ("Arsenal vs Chelsea", "Arsenal vs Liverpool"),
        ("Taylor Swift", "Taylor Fritz"),
        ("Daniel Craig", "Daniela Craig"),
        ("Austria", "Australia"),
        ("chocolate milk", "milk chocolate"),
        ("Malcolm X", "Malcolm 10"),
        ("Marvel", "The Marvels"),
        ("Eras Tour", "Taylor Swift Eras Tour"),
        ("USA Today", "USA"),
        ("Christmas Eve", "Weihnachten"),
    ],
)
def test_what_only_looks_alike(one: str, other: str) -> None:
    assert not same(record(one), record(other))


@pytest.mark.parametrize(
    ("one", "other", "headline"),
    [
        ("Taylor Swift Eras Tour", "Eras Tour", "Final night of the Eras Tour brings a surprise song"),
        ("Sinner", "Jannik Sinner", "Jannik Sinner wins again in Turin"),
        ("Dune Part Three trailer", "Dune Part Three", "The first Dune: Part Three trailer is here"),
        ("PARLUM", "Parade of Lumens", "PARLUM, the Parade of Lumens, starts at dusk"),
        ("Glasshouse Festival", "Glasshouse Flower Festival", "Glasshouse Festival glows again"),
        ("Supermoons", "Supermoon", "A supermoon for the last night of autumn"),
    ],
)
def test_part_of_a_name_needs_a_headline_that_both_have(one: str, other: str, headline: str) -> None:
    assert not same(record(one), record(other))
    assert same(record(one, headline), record(other, headline))
    assert not same(record(one, "Something else altogether happened"), record(other, headline))


def test_a_headline_of_one_may_tell_the_longer_name() -> None:
    known_by_less = record("Verstappen", "Max Verstappen takes pole in the rain")
    assert same(known_by_less, record("Max Verstappen"))
    assert not same(known_by_less, record("Jos Verstappen"))
    assert same(record("GBBO"), record("Great British Bake Off", "GBBO: a week in the Great British Bake Off tent"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Arsenal", "Chelsea"),
        ("Taylor Swift", "Taylor Swift Eras Tour"),
        ("Serena Williams", "Venus Williams"),
        ("World Cup", "World Cup draw"),
        ("Sydney", "Sydney New Year's Eve"),
        ("England", "England U21"),
    ],
)
def test_a_shared_headline_alone_is_no_reason(one: str, other: str) -> None:
    headline = f"What {one} and {other} have in common"
    assert not same(record(one, headline), record(other, headline))


def test_the_year_of_a_name_counts_as_the_year_in_which_it_was_said() -> None:
    of_2025 = Named.of("eurovision", ["Eurovision"], (), 2025)
    assert same(record("Eurovision 2026"), record("Eurovision"))
    assert not same(record("Eurovision 2026"), of_2025)


def test_what_shares_part_of_a_third_clashes() -> None:
    assert clash(record("Jannik Sinner"), record("Joe Sinner"))
    assert not clash(record("Jannik Sinner"), record("Sinner"))


@given(names(), names())
def test_the_rule_is_symmetric_and_never_without_a_shared_key(one: Named, other: Named) -> None:
    assert reason(one, other) == reason(other, one)
    assert clash(one, other) == clash(other, one)
    if why := reason(one, other):
        assert why in REASONS
        assert keys(one) & keys(other)


@given(names())
def test_a_name_is_itself(one: Named) -> None:
    assert same(one, one) == bool(one.wordings)
    assert not clash(one, one)


@given(st.text(max_size=40), st.lists(st.text(max_size=60), max_size=3))
def test_any_text_has_keys(name: str, headlines: Sequence[str]) -> None:
    found = Named.of("x", [name], headlines, 2026)
    assert all(wording.tokens and all(wording.tokens) for wording in found.wordings)
    assert isinstance(keys(found), frozenset)


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("#SilentSunday", ("silent", "sunday")),
        ("Super Bowl LX", ("super", "bowl", "60")),
        ("the of", ("the", "of")),
        ("President Xi", ("president", "xi")),
        ("C++", ("c++",)),
        ("iOS 26.1", ("ios", "26", "1")),
    ],
)
def test_words_that_count(name: str, tokens: tuple[str, ...]) -> None:
    assert wordings(name, 2026)[0].tokens == tokens
