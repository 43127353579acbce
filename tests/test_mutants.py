"""Planted formulas are wrong in one place each, and the list of equivalent ones is true."""

import ast
import tomllib
from functools import cache
from pathlib import Path

import pytest

import mutants
import mutations
import onepath

SRC = Path(onepath.__file__).parent
MODULES = sorted(p.stem for p in SRC.glob("*.py"))

SOURCE = '''
"""One line."""
LIMIT = 3


def half(x: float, by: int = 2) -> float:
    """x / 2, said in words."""
    if x < 0:
        raise ValueError(f"x must be {0 + 1} or more, got {x - 1}.")
    return -x.sum() / by


double = lambda x: x + x
'''


@cache
def planted_in(module: str) -> list[mutations.Mutant]:
    return mutations.mutants_of(SRC / f"{module}.py")


@pytest.fixture
def planted(tmp_path):
    (tmp_path / "small.py").write_text(SOURCE)
    return mutations.mutants_of(tmp_path / "small.py")


def test_every_kind_of_change_is_planted_where_something_is_computed(planted):
    assert {m.name: m.kind for m in planted} == {
        "small.half: 2 -> 3": "constant",
        "small.half: x < 0 -> x <= 0": "comparison",
        "small.half: x < 0 -> x > 0": "comparison",
        "small.half: 0 -> 1": "constant",
        "small.half: -x.sum() / by -> -x.sum() * by": "operator",
        "small.half: -x.sum() -> x.sum()": "sign",
        "small.half: x.sum() -> x.mean()": "function",
        "small.double: x + x -> x - x": "sign",
    }


def test_where_an_answer_is_tried_is_not_planted_and_what_it_is_asked_is(tmp_path):
    """A point, a time, and whether a tolerance is met exactly are choices; the rest is not."""
    text = "def f(answer):\n    yield -1.0 + answer(-answer(2.0)) < 0.5\n"
    (tmp_path / "exercises_small.py").write_text(text)
    (tmp_path / "small.py").write_text(text)
    kinds = lambda name: sorted(m.after for m in mutations.mutants_of(tmp_path / name))
    asked = [
        "-1.0 + answer(-answer(2.0)) > 0.5",
        "-1.0 - answer(-answer(2.0))",
        "answer(2.0)",
    ]
    assert kinds("exercises_small.py") == sorted(asked)
    assert set(kinds("small.py")) > set(asked)


def test_a_mutant_changes_one_place_and_no_text(planted):
    for m in planted:
        lines = [(a, b) for a, b in zip(SOURCE.splitlines(), m.source.splitlines()) if a != b]
        assert len(lines) == 1 and SOURCE.splitlines()[m.line - 1] == lines[0][0]
        assert ast.dump(ast.parse(m.source)) != ast.dump(ast.parse(SOURCE))


def test_the_draw_is_repeated_by_its_seed_and_never_takes_a_place_twice(tmp_path):
    (tmp_path / "small.py").write_text(SOURCE)
    paths = [tmp_path / "small.py"]
    names = lambda n, seed: [m.name for m in mutations.draw(paths, n, seed)]
    assert names(5, 1) == names(5, 1) != names(5, 2)
    everything = [(m.line, m.before) for m in mutations.draw(paths, 99, 0)]
    assert len(everything) == len(set(everything)) == 7


@pytest.mark.parametrize("module", MODULES)
def test_every_mutant_of_the_package_can_be_read_by_python(module):
    found = planted_in(module)
    for m in found[::8]:  # each is the whole module, and there are thousands
        ast.parse(m.source)
    names = [m.name for m in found]
    assert len(names) == len(set(names))


def test_what_is_listed_as_equivalent_exists_and_has_a_reason():
    names = {m.name for module in MODULES for m in planted_in(module)}
    rows = tomllib.loads(mutants.EQUIVALENT.read_text())["equivalent"]
    assert all(len(row["reason"]) > 20 for row in rows)
    assert [row["mutant"] for row in rows if row["mutant"] not in names] == []
    assert len(mutants.reasons()) == len(rows)


def test_the_kind_of_check_that_failed_is_read_from_the_line_of_pytest():
    lines = {
        "/a/test_x.py:1: AssertionError: eq:a: largest error is 2, above the bound": "identity",
        "E   AssertionError: eq:a: standard errors is 9, above the bound": "law",
        "/a/test_x.py:9: Failed: DID NOT RAISE ValueError": "refusal",
        "/a/test_x.py:9: jaxtyping.TypeCheckError: parameter": "shapes",
        "/a/test_x.py:9: assert 1 == 2": "plain comparison",
        "/a/x.py:9: RuntimeError: shape": "an exception",
    }
    for line, leg in lines.items():
        assert mutants.legs(line)[0].startswith(leg)
    assert len(mutants.legs("\n".join(lines))) == len(lines)
