"""Records keep what they came with, to the letter."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.batch.records import ADDED, MAX_LINE_BYTES, Malformed, parse, with_fields

KEYS = st.text(max_size=8) | st.sampled_from(ADDED)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NEW = {"vlm_caption": 'A "quoted" caption,\u2028with é.', "vlm_model": "tiny"}


@given(
    st.dictionaries(KEYS, VALUES, max_size=6),
    st.booleans(),
    st.sampled_from([(", ", ": "), (",", ":"), (" ,\t", " :  ")]),
)
def test_every_other_field_stays_and_in_its_order(fields: dict[str, Any], ascii_only: bool, separators: Any) -> None:
    text = json.dumps(fields, ensure_ascii=ascii_only, separators=separators)
    made = with_fields(parse(7, text.encode("utf-8", "surrogatepass")), NEW)
    kept = [(name, value) for name, value in fields.items() if name not in ADDED]
    assert json.loads(made, object_pairs_hook=list) == [
        *json.loads(json.dumps(dict(kept)), object_pairs_hook=list),
        *NEW.items(),
    ]
    assert "\n" not in made


@pytest.mark.parametrize(
    "member",
    [
        '"n": 123456789012345678901234567890.10',
        '"n": 1e400',
        '"n": NaN, "m": -Infinity',
        '"n": ' + "9" * 6000,
        '"n": 1.0E+2',
        '"a": 1, "a": 2',
        '"s": "\\ud800 \\u00e9 é \\/"',
        '"x": [ 1,2 , {"y":  null}]',
        '"vlm": {"vlm_caption": "within"}',
    ],
)
@pytest.mark.parametrize("old", ["", ', "vlm_caption": "old, \\"}"'])
def test_what_python_would_write_otherwise_is_not_touched(member: str, old: str) -> None:
    made = with_fields(parse(3, f"  {{ {member}{old} }} \r".encode()), NEW)
    assert member in made
    assert made.count('"vlm_caption"') == 1 + ("within" in member)
    assert made.startswith("{")
    assert made.endswith('"vlm_model": "tiny"}')


def test_a_byte_order_mark_at_the_start_is_none_of_the_record() -> None:
    assert parse(1, b'\xef\xbb\xbf{"id": 1}').text == '{"id": 1}'


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"id": 1', "not JSON"),
        (b"\xff{}", "UTF-8"),
        (b"[1]", "no object"),
        (b"[", "jq -c"),
        (b'{"id": 1}\0', "not JSON"),
        (b'{"id": "' + b"x" * MAX_LINE_BYTES + b'"}', "MiB"),
        (b'"text"', "no object"),
        (b"[" * 100_000, "deep"),
        (b'{"id": 1} {"id": 2}', "not JSON"),
    ],
)
def test_what_is_no_record_is_named_without_its_text(line: bytes, says: str) -> None:
    with pytest.raises(Malformed, match=says):
        parse(1, line)


def test_a_record_is_known_by_its_id_or_its_place() -> None:
    assert parse(4, b'{"id": "a"}').identity("id") == "a"
    assert parse(4, b'{"id": 17}').identity("id") == "17"
    assert parse(4, b'{"id": null}').identity("id") == parse(4, b"{}").identity("id") == "#4"
