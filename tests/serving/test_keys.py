"""What a key looks like, what is kept of it, and how it is sent."""

import hashlib
import hmac
import string
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serving.identity import keys
from serving.identity.headers import MAX_CHARS, claimed
from serving.identity.keys import FORM, ApiKey, Claim, new_key, read_key
from tests.fakes import NOW

KEY, KEPT = new_key("mine", frozenset({"captions"}), NOW)
OTHER, _ = new_key("another", frozenset({"captions"}), NOW)

Headers = list[tuple[bytes, bytes]]


def test_a_key_is_read_as_it_was_made() -> None:
    claim = read_key(KEY)
    assert claim is not None
    assert claim.id == KEPT.id
    assert KEPT.fits(claim)
    assert FORM.fullmatch(KEY)


def test_no_two_keys_are_alike() -> None:
    made = [new_key("same", frozenset(), NOW) for _ in range(200)]
    assert len({key for key, _ in made}) == len({kept.id for _, kept in made}) == 200


def test_only_the_digest_is_kept_and_shown_nowhere() -> None:
    claim = read_key(KEY)
    assert claim
    assert len(claim.secret) * 5.954 > 255  # bits: log2 of 62 letters
    assert KEPT.digest == hashlib.sha256(claim.secret.encode()).hexdigest()
    shown = f"{KEPT!r} {KEPT} {claim!r} {claim}"
    assert claim.secret not in shown
    assert KEPT.digest not in shown


@given(st.integers(0, len(KEY) - 1), st.sampled_from(string.ascii_letters + string.digits + "_-. \n\u0660é"))
@example(len(KEY) - 1, "\n")
def test_a_key_with_one_wrong_letter_is_known_for_damaged_without_asking_anybody(at: int, letter: str) -> None:
    damaged = KEY[:at] + letter + KEY[at + 1 :]
    assert (read_key(damaged) is None) == (damaged != KEY)


@given(st.text(max_size=200))
@example(KEY + "\n")
@example(" " + KEY)
@example(KEY[:-1])
@example("")
def test_nothing_else_is_a_key(text: str) -> None:
    assert read_key(text) is None


def test_secrets_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def watched(one: str, other: str) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    class Watched:
        compare_digest = staticmethod(watched)

    monkeypatch.setattr(keys, "hmac", Watched)
    assert not KEPT.fits(Claim(KEPT.id, "x" * 43))
    assert compared == [(hashlib.sha256(b"x" * 43).hexdigest(), KEPT.digest)]


def test_a_key_ends_at_its_time_and_when_it_is_revoked() -> None:
    def key(**changes: object) -> ApiKey:
        return ApiKey("id", "name", "digest", frozenset(), None, NOW, **changes)  # type: ignore[arg-type]

    assert key().fault(NOW + timedelta(days=10_000)) is None
    ending = key(expires_at=NOW)
    assert ending.fault(NOW - timedelta(microseconds=1)) is None
    assert ending.fault(NOW) == "expired"
    assert key(expires_at=NOW, revoked_at=NOW).fault(NOW) == "revoked"


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-api-key", KEY.encode())],
        [(b"authorization", f"Bearer {KEY}".encode())],
        [(b"authorization", f"bEARER   {KEY} ".encode())],
        [(b"x-api-key", KEY.encode()), (b"authorization", f"Bearer {KEY}".encode())],
        [(b"x-api-key", KEY.encode()), (b"authorization", b"Basic dTpw")],
        [(b"x-api-key", KEY.encode()), (b"authorization", b"Bearer none")],
        [(b"x-api-key", b""), (b"authorization", f"Bearer {KEY}".encode())],
    ],
)
@pytest.mark.parametrize("required", [True, False])
def test_ways_to_send_a_key(headers: Headers, required: bool) -> None:
    assert claimed(headers, required=required) == read_key(KEY)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-api-key", KEY.encode()), (b"x-api-key", OTHER.encode())],
        [(b"authorization", f"Bearer {KEY}".encode()), (b"authorization", f"Bearer {OTHER}".encode())],
        [(b"x-api-key", KEY.encode()), (b"authorization", f"Bearer {OTHER}".encode())],
        [(b"x-api-key", f"{KEY}, {KEY}".encode())],
        [(b"x-api-key", KEY.encode() + b"x" * 1_000_000)],
        [(b"x-api-key", KEY.encode()[:-1] + "é".encode("latin-1"))],
        [(b"x-api-key", KEY.encode()[:-1] + "é".encode())],
        [(b"x-api-key", KEY.encode()[:-1])],
        [(b"x-api-key", b"tr_")],
        [(b"x-api-key", KEY.encode().replace(b"_", b"\0"))],
    ],
)
def test_what_is_nearly_a_key_is_refused_wherever_it_is_sent(headers: Headers) -> None:
    assert claimed(headers, required=True) == "malformed"
    if headers[0][1].startswith(b"tr_"):
        assert claimed(headers, required=False) == "malformed"


@pytest.mark.parametrize("value", [b"sk-none", b"EMPTY", b"x" * 10_000, b"\xff\xfe", b"Bearer"])
def test_any_word_will_do_where_no_key_is_needed(value: bytes) -> None:
    for headers in ([(b"authorization", b"Bearer " + value)], [(b"x-api-key", value)]):
        assert claimed(headers, required=False) is None
        assert claimed(headers, required=True) == "malformed"


@pytest.mark.parametrize(
    "value", [b"", b"Bearer", b"Bearer ", b"Basic dTpw", b"Digest x", KEY.encode(), b" "], ids=range(7)
)
def test_other_authorization_is_nobodys(value: bytes) -> None:
    assert claimed([(b"authorization", value)], required=True) is None


NAMES = st.sampled_from([b"x-api-key", b"authorization", b"cookie", b"x-api-key-2"])
VALUES = st.one_of(
    st.binary(max_size=300),
    st.sampled_from([KEY.encode(), OTHER.encode(), b"tr_", b"x"]).flatmap(
        lambda key: st.sampled_from([key, b"Bearer " + key, b"bearer  " + key, b"Basic " + key, key * 4])
    ),
)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=5), st.booleans())
def test_headers_of_any_kind_give_a_key_that_was_sent_or_none(headers: Headers, required: bool) -> None:
    found = claimed(headers, required=required)
    assert found == claimed(list(reversed(headers)), required=required)
    if isinstance(found, Claim):
        sent = [value for name, value in headers if name in (b"x-api-key", b"authorization")]
        key, other = (KEY, OTHER) if found.id == KEPT.id else (OTHER, KEY)
        assert any(value.strip().endswith(key.encode()) and len(value) <= MAX_CHARS for value in sent)
        assert not any(name == b"x-api-key" and value == other.encode() for name, value in headers)
    elif found is None and required:
        assert not any(name == b"x-api-key" and value.strip() for name, value in headers)
