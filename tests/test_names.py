"""Names from data choose neither path nor markup."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitsearch.core.names import masked, printable, safe_name

HOSTILE = [
    "",
    ".",
    "..",
    "a/b",
    "/etc/passwd",
    "x/../../escaped",
    'x"><img src=x>',
    "a\0b",
    "-rf",
    "~",
    "a" * 5000,
    "ä",
]


@pytest.mark.parametrize("name", ["nll", "auc_low", "layer-12", "blocks.0.first"])
def test_plain_names_stay(name: str) -> None:
    assert safe_name(name) == name


@given(st.text() | st.sampled_from(HOSTILE))
def test_any_text_becomes_one_plain_part_of_a_path(text: str) -> None:
    safe = safe_name(text)
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", safe)
    assert ".." not in safe
    assert not safe.startswith((".", "-"))
    assert len(safe) < 100
    assert Path("folder", safe).parent == Path("folder")


def test_different_names_stay_different() -> None:
    assert len({safe_name(text) for text in HOSTILE}) == len(HOSTILE)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mysql://user:secret@host/db", "mysql://user:***@host/db"),
        ("postgresql+psycopg://u:se:c@ret@host:5432/db", "postgresql+psycopg://u:***@host:5432/db"),
        ("postgresql://u:sec/ret@host/db", "postgresql://u:***@host/db"),
        ("mysql://host/db?user=u&password=secret", "mysql://host/db?user=u&password=***"),
        ("cannot open mysql://u:secret@h (no route)", "cannot open mysql://u:***@h (no route)"),
        ("sqlite:////data/study.db", "sqlite:////data/study.db"),
        ("https://host:8080/path", "https://host:8080/path"),
    ],
)
def test_passwords_in_addresses_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_what_cannot_be_printed_is_a_question_mark() -> None:
    assert printable("layer\x00\n\x1b[31m über") == "layer? ?[31m über"
