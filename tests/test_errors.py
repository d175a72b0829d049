"""What a message takes over from the errors of libraries."""

from __future__ import annotations

import pickle

import pytest

from glean_ext.cli import as_option
from glean_ext.errors import InputError, Notice, UnreadableImageError, as_keyword, first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("No such thing. "), "No such thing"),
        (ValueError("\n The first line.\nThe second."), "The first line"),
        (ValueError("."), "ValueError"),
        (OSError(), "OSError"),
        (KeyError("weight"), "KeyError"),
        (RuntimeError("x" * 300), "x" * 200),
    ],
)
def test_first_line(error, line):
    assert first_line(error) == line


@pytest.mark.parametrize(
    ("spell", "line"),
    [
        (as_keyword, "a.png is too small. Set size_policy='resize' or give another image."),
        (as_option, "a.png is too small. Set --size-policy resize or give another image."),
        (lambda parameter, value: None, "a.png is too small."),  # a front end that has no such control
    ],
)
def test_each_reader_gets_its_own_spelling(spell, line):
    error = InputError("a.png is too small.", "size_policy", "Set {size_policy=resize} or give another image.")
    assert error.render(spell) == line
    assert Notice(error.message, error.parameter, error.hint).render(spell) == line


def test_braces_in_the_name_of_a_file_are_no_parameter():
    assert str(InputError("{fit}.png and {size_policy}.png", "fit")) == "fit.png and {size_policy}.png"
    assert str(InputError("{fit}.png")) == "{fit}.png"


def test_an_error_keeps_its_parts_through_pickle_and_prefix():
    error = pickle.loads(pickle.dumps(UnreadableImageError("it is damaged.", "unreadable", "Use {unreadable=skip}.")))
    about = error.about("a.png")
    assert type(about) is UnreadableImageError and about.parameter == "unreadable"
    assert str(about) == "a.png: it is damaged. Use unreadable='skip'."
    assert str(about.about("a.png")) == str(about)
