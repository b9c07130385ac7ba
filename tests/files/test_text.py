"""Names in texts: lists with quotes, Unicode forms and numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.files.text import join_quoted, parse_number, same_text, split_quoted

NAMES = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1).map(str.strip)


@given(st.lists(NAMES.filter(bool), min_size=1))
def test_quoted_names_are_split_again(names: list[str]) -> None:
    assert split_quoted(join_quoted(names)) == names


def test_unquoted_names_are_split_at_commas() -> None:
    assert split_quoted('a, b ,"c, d"') == ["a", "b ", "c, d"]


def test_unicode_forms_are_one_name() -> None:
    assert same_text(" e\u0301 ") == same_text("\u00e9") != same_text("e")


def test_numbers_have_no_underscores() -> None:
    assert (parse_number(int, "40"), parse_number(float, " 4e1")) == (40, 40.0)
    for text in ("4_0", "", "four"):
        for kind in (int, float):
            with pytest.raises(ValueError):
                parse_number(kind, text)
