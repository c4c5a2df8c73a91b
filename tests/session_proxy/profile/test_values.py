from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_proxy.profile import values
from session_proxy.profile.model import ListenAddress
from session_proxy.profile.secret_sources import InvalidValueError

PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.text(), st.integers(), max_size=2)
)
READERS = [
    values.read_bool,
    values.read_int,
    values.read_float,
    values.read_text,
    values.read_listen_address,
    values.read_target,
    values.read_match,
    values.read_ports,
]


@pytest.mark.parametrize("read", READERS)
@given(value=PLAIN)
def test_any_value_is_read_or_refused_with_a_fix(read: type, value: object) -> None:
    refusal: InvalidValueError | None = None
    try:
        read(value)
    except InvalidValueError as exc:
        refusal = exc

    assert refusal is None or (str(refusal) and refusal.fix)


@pytest.mark.parametrize(
    ("value", "described"),
    [
        (None, "empty"),
        (True, "true or false"),
        (1, "a number"),
        (1.5, "a number"),
        ("hunter2", "text"),
        ([], "a list"),
        ({}, "a table"),
        (dt.date(2020, 1, 1), "a date"),
        (dt.time(1), "a date"),
        (b"", "a bytes"),
    ],
)
def test_values_are_described_without_being_shown(value: object, described: str) -> None:
    assert values.describe(value) == described


def test_a_number_too_large_for_a_float_is_not_finite() -> None:
    with pytest.raises(InvalidValueError, match="not a finite number"):
        values.read_float(10**400)


def test_listen_addresses_are_canonical() -> None:
    assert values.read_listen_address("[::0001]:0") == ListenAddress("::1", 0)
    assert str(values.read_listen_address("[::1]:5")) == "[::1]:5"


@pytest.mark.parametrize(
    ("text", "reason", "fix"),
    [
        ("a", "'a' has no port", 'write "HOST:PORT", such as "bastion.example.com:22"'),
        ("::1:80", "'::1:80' is ambiguous", "write an IPv6 address as [ADDRESS]:PORT"),
        ("a:0", "0 is not a port", "write HOST:PORT with a port from 1 to 65535"),
        ("https://a.b:4443", "is a URL", "write a.b:4443"),
    ],
)
def test_a_wrong_target_has_one_fix(text: str, reason: str, fix: str) -> None:
    with pytest.raises(InvalidValueError) as info:
        values.read_target(text)

    assert (str(info.value), info.value.fix) == (reason, fix)


def test_the_example_of_a_target_is_the_key_s_own() -> None:
    with pytest.raises(InvalidValueError) as info:
        values.read_target("a", '"vpn.example.com:443"')

    assert info.value.fix == 'write "HOST:PORT", such as "vpn.example.com:443"'


@pytest.mark.parametrize(("word", "meant"), [("Listen", "listen"), ("host-keys", "host_keys"), ("zzz", None)])
def test_suggestions(word: str, meant: str | None) -> None:
    assert values.suggest(word, ["listen", "host_keys"]) == meant


def test_choices_are_written_out() -> None:
    assert values.one_of(["a"]) == '"a"'
    assert values.one_of(["a", "b"]) == '"a" or "b"'
    assert values.one_of(["a", "b", "c"]) == '"a", "b" or "c"'


@pytest.mark.parametrize("name", ["dev", "eu-west_1.prod", "1"])
def test_upstream_names(name: str) -> None:
    values.check_name(name)


@pytest.mark.parametrize("name", ["", "direct", "reject", "a b", "a/b", "ä", "x" * 65])
def test_names_that_cannot_be_used(name: str) -> None:
    with pytest.raises(InvalidValueError):
        values.check_name(name)


@pytest.mark.parametrize("name", ["direct", "reject", "free", "a.b-c_1"])
def test_other_names_are_not_reserved(name: str) -> None:
    values.check_plain_name(name)
    assert values.describe_name_fault(name) is None


@pytest.mark.parametrize("name", ["alice", "alice@example.com", "Älice B", "x" * 128])
def test_users_are_called_as_their_tokens_say(name: str) -> None:
    values.check_user_name(name)


@pytest.mark.parametrize("name", ["", "x" * 129, "a\nb"])
def test_names_that_no_token_says(name: str) -> None:
    with pytest.raises(InvalidValueError):
        values.check_user_name(name)
