"""The API page: signatures as they are written, docstrings as Markdown, links from the ledger."""

import ast
from pathlib import Path

import pytest

import onepath
from small_books import BOOK, EXTENSIONS, chapter, plain, sphinx

SOURCE = '''
"""Dynamics."""

def with_noise(velocity: Field, *, eta: Curve = zero) -> Dynamics:
    r"""The drift $b$.

    $$ b = v + \\tfrac12\\eta^2 s. $$

    Args:
        eta: the noise level, which is
            at least zero.

    Source: here. Book: eq:family, ex:reverse.
    """

def _hidden():
    """No part of the interface."""
'''


@pytest.fixture
def api(monkeypatch):
    monkeypatch.syspath_prepend(str(EXTENSIONS))
    import api

    return api


def test_modules_come_in_reading_order(api):
    package = Path(onepath.__file__).parent
    present = [name for name in onepath.READING_ORDER if (package / f"{name}.py").exists()]
    assert api.reading_order(package) == present


@pytest.mark.parametrize(
    "written",
    [
        "f()",
        "f(x)",
        "f(x: Points, t=0.5)",
        "f(x: Points, *, eta: Curve = zero) -> Values",
        "f(*parts: str)",
    ],
)
def test_a_signature_reads_as_it_is_written(api, written):
    assert api.signature("f", ast.parse(f"def {written}: pass").body[0]) == written


def test_a_long_signature_has_one_argument_a_line(api):
    names = ", ".join(f"argument_{k}: Points" for k in range(4))
    lines = api.signature("f", ast.parse(f"def f({names}) -> Values: pass").body[0]).splitlines()
    assert lines[0] == "f(" and lines[1] == "    argument_0: Points," and lines[-1] == ") -> Values"


def test_the_fields_of_a_dataclass_are_its_signature(api):
    tree = ast.parse("class Dynamics:\n    drift: Field\n    eta: Curve = zero")
    assert api.signature("Dynamics", tree.body[0]) == "Dynamics(drift: Field, eta: Curve = zero)"


def test_the_ledger_links_to_the_entry_that_names_the_equation(tmp_path, api):
    (tmp_path / "src/onepath").mkdir(parents=True)
    (tmp_path / "src/onepath/__init__.py").write_text('READING_ORDER = ("dynamics",)\n')
    (tmp_path / "src/onepath/dynamics.py").write_text(SOURCE, "utf8")
    (tmp_path / "06-path.ipynb").write_text(chapter(), "utf8")
    (tmp_path / "refs.bib").write_text(BOOK)
    (tmp_path / "ledger.md").write_text("# Ledger\n\n```{ledger}\n```\n")
    (tmp_path / "api.md").write_text("# API\n\n```{api-reference}\n```\n")
    (tmp_path / "index.md").write_text("# Book\n\n```{toctree}\n06-path\nledger\napi\n```\n")
    built = sphinx(tmp_path, ["api"], site_source="https://forge/v1")
    assert built.warnings == []
    assert 'href="api.html#onepath-dynamics-with-noise"' in built.page("ledger")
    page = built.page("api")
    assert 'id="onepath-dynamics-with-noise"' in page and "_hidden" not in page
    assert "https://forge/v1/src/onepath/dynamics.py#L4-L14" in page
    assert "In the book: (6.2), Exercise 6.1." in plain(page)
