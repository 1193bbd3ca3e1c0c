from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.same import Named, clash, keys, same
from ingest.unite import MAX_BLOCK, surroundings, united
from tests.ingest.names import many_names, record


def groups(*names: Named) -> set[tuple[str, ...]]:
    return set(united(names))


def test_wordings_of_one_topic_are_one_group_and_others_stay_apart() -> None:
    found = groups(*map(record, ["World Cup", "Weltmeisterschaft", "Coupe du monde", "Women's World Cup", "latte art"]))
    assert found == {("coupedumonde", "weltmeisterschaft", "worldcup"), ("women'sworldcup",), ("latteart",)}


def test_a_chain_does_not_join_what_differs() -> None:
    headline = "Jannik Sinner and Joe Sinner share a surname"
    found = groups(record("Jannik Sinner", headline), record("Sinner", headline), record("Joe Sinner", headline))
    assert sorted(map(len, found)) == [1, 2]
    assert all(len(group) == 1 or "sinner" in group for group in found)


def test_years_on_both_sides_stay_apart_though_the_bare_name_fits_one() -> None:
    found = groups(record("Eurovision 2025"), record("Eurovision"), record("Eurovision 2026"))
    assert found == {("eurovision", "eurovision2026"), ("eurovision2025",)}


def test_a_key_that_many_share_is_passed_over() -> None:
    headline = "The whole list of those who were there"
    few = [record(f"name{number:03}abc", headline) for number in range(3)]
    many = [record(f"name{number:03}abc", headline) for number in range(MAX_BLOCK + 5)]
    assert len(groups(*few)) == len(few)
    assert len(groups(*many)) == len(many)


@given(many_names(), st.randoms(use_true_random=False))
def test_the_order_of_names_does_not_matter(found: list[Named], random: Random) -> None:
    mixed = list(found)
    random.shuffle(mixed)
    assert united(mixed) == united(found)


@given(many_names())
def test_every_form_is_in_one_group_without_contradiction(found: list[Named]) -> None:
    by_form = {each.form: each for each in found}
    result = united(found)
    assert sorted(form for group in result for form in group) == sorted(by_form)
    for group in result:
        pairs = [(by_form[a], by_form[b]) for a in group for b in group if a < b]
        assert not any(clash(a, b) and not same(a, b) for a, b in pairs)


@given(many_names(), st.data())
@settings(deadline=None)
def test_what_is_closed_under_shared_keys_is_united_as_in_the_whole(found: list[Named], data: st.DataObject) -> None:
    changed = data.draw(st.sets(st.sampled_from([each.form for each in found]))) if found else set()
    closed = surroundings(changed, {each.form: keys(each) for each in found})
    assert changed <= closed
    alone = set(united(each for each in found if each.form in closed))
    assert alone == {group for group in united(found) if set(group) & closed}
    assert all(set(group) <= closed for group in alone)
