"""The ledger of a sound book: its rows, its page, badges, lines and numbers."""

import re
from functools import partial

import pytest

from small_books import EXTENSIONS, SOUND, plain, record, small_book


@pytest.fixture
def build(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXTENSIONS))
    return partial(small_book, tmp_path)


def test_a_sound_book_builds_and_its_ledger_has_a_row_a_record(build):
    built = build(claims={"C3": ["eq:family"]})
    assert built.warnings == []
    shared = {"label": "eq:family", "kind": "identity", "bound": 1e-9, "claim": "C3", "chapter": 6}
    shared["function"] = "onepath.dynamics.with_noise"
    empty = dict.fromkeys(("kind", "error", "bound", "mistake", "function", "claim"))
    assert built.ledger == [
        {"label": "eq:symbol", "verdict": "definition", "chapter": 6} | empty,
        shared | {"verdict": "held", "error": 1e-12, "mistake": None},
        shared | {"verdict": "refuted", "error": 0.5, "mistake": "factor: a quarter"},
    ]


def test_numbers_come_from_the_name_of_the_file(build):
    page = build(pages={"13-other.md": "---\nkernelspec: {name: python3}\n---\n# Other\n"}).page(
        "06-path"
    )
    for shown in ("(6.1)", "(6.2)", "Theorem 6.1", "Exercise 6.1", "Chapter 6"):
        assert shown in plain(page)
    assert re.search(r'section-number">6 </span>One path', page)
    assert re.search(r'section-number">6\.1 </span>Its equation', page)


def test_each_equation_has_a_badge_that_leads_to_its_row(build):
    built = build()
    assert 'href="ledger.html#row-eq-family"' in built.page("06-path")
    assert "✓ checked" in plain(built.page("06-path")) and "definition" in plain(
        built.page("06-path")
    )
    table = built.page("ledger")
    assert 'id="row-eq-family"' in table and 'href="06-path.html#equation-eq-family"' in table
    assert "2 labelled equations: 1 checked, 1 definition" in plain(table)
    assert "1 checks hold and 1 planted mistakes are caught (1 factor)" in plain(table)
    assert "dynamics.with_noise" in table


@pytest.mark.parametrize(
    "changes, shown",
    [
        ({}, "(6.2) holds: largest error 10 −12 ≤ 10 −9"),
        ({"kind": "law", "error": 1.2, "bound": 4.0}, "(6.2) holds: 1.2 ≤ 4 standard errors"),
        (
            {"kind": "bound", "error": 0.69, "bound": 1.0, "sides": [0.31, 0.45]},
            "(6.2) holds: 0.31 ≤ 0.45 , ratio 0.69",
        ),
        (
            {"kind": "order", "error": 0.02, "bound": 0.25, "sides": [1.98, 2.0]},
            "(6.2) holds: slope 1.98 , claimed 2 , off by 0.02 ≤ 0.25",
        ),
        ({"label": "thm:family"}, "Theorem 6.1 holds"),
    ],
)
def test_a_check_is_one_line_with_its_number_and_what_was_compared(build, changes, shown):
    page = build([*SOUND, record(**changes)]).page("06-path")
    assert spaced(shown) in spaced(plain(page))


def test_a_refutation_names_the_mistake_that_it_catches(build):
    shown = "(6.2) catches factor: a quarter : largest error 0.5 > 10 −9"
    assert spaced(shown) in spaced(plain(build().page("06-path")))


def spaced(text: str) -> str:
    return re.sub(r"\s+", "", text)
