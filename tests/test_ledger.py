"""The ledger on books of one or two pages: a sound book builds, each broken rule fails it."""

import html
import io
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

EXTENSIONS = Path(__file__).resolve().parents[1] / "book/_ext"
MIME = "application/vnd.onepath.check+json"
USES = ["myst_nb", "sphinx_proof", "sphinx_exercise", "sphinxcontrib.bibtex", "numbering", "ledger"]
KERNEL = {
    "kernelspec": {"name": "python3", "display_name": "Python 3"},
    "language_info": {"name": "python"},
}

TEXT = r"""
(ch:path)=
# One path

## Its equation

```{math}
:label: eq:symbol
:class: definition
x_t = \sigma_t x_0 + \alpha_t x_1
```

:::{prf:theorem} Same marginals
:label: thm:family

$$ b = v + \tfrac12\eta^2\,\nabla\log\rho $$ (eq:family)
:::

:::{prf:proof}
A display in a proof needs no label:

$$ \nabla\rho = \rho\,\nabla\log\rho. $$
:::

{eq}`eq:family`, {prf:ref}`thm:family`, {ref}`ex:reverse`, {numref}`ch:path` agree.

:::{exercise}
:label: ex:reverse

$$ s = 1 - t $$
:::
"""
PACKAGE = """
def with_noise():
    '''The drift.

    Source: here. Book: eq:family.
    '''
"""


def record(**changes) -> dict:
    """A check of eq:family that holds, with changes."""
    sound = {
        "label": "eq:family",
        "kind": "identity",
        "verdict": "held",
        "error": 1e-12,
        "bound": 1e-9,
    }
    return sound | {"mistake": None, "sides": None} | changes


def refuted(**changes) -> dict:
    return record(verdict="refuted", error=0.5, mistake="factor: a quarter") | changes


BOOK = "@book{risken, author={R}, title={T}, publisher={P}, year={1996}}"
SOUND = (record(), refuted())


@dataclass
class Built:
    """What a build leaves: its warnings, its ledger or None, its pages."""

    warnings: list[str]
    ledger: list[dict] | None
    folder: Path

    def page(self, name: str) -> str:
        return (self.folder / "_build/html" / f"{name}.html").read_text("utf8")


def chapter(records=SOUND, text=TEXT, claims=None) -> str:
    """A notebook of one text and one cell, which displayed these records."""
    outputs = [new_output("display_data", {MIME: r, "text/plain": "check"}) for r in records]
    code = new_code_cell("expect()", outputs=outputs, execution_count=1)
    front = dict(KERNEL) | ({"claims": claims} if claims else {})
    return nbformat.writes(new_notebook(cells=[new_markdown_cell(text), code], metadata=front))


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Build a book of one chapter with these records, and what pages and package come with it."""
    monkeypatch.syspath_prepend(str(EXTENSIONS))

    def run(records=SOUND, text=TEXT, pages=None, package=PACKAGE, claims=None) -> Built:
        (tmp_path / "src/onepath").mkdir(parents=True, exist_ok=True)
        (tmp_path / "src/onepath/dynamics.py").write_text(package, "utf8")
        (tmp_path / "refs.bib").write_text(BOOK, "utf8")
        files = {"06-path.ipynb": chapter(records, text, claims)}
        files["ledger.md"] = "# Ledger\n\n```{ledger}\n```\n"
        files |= {"bibliography.md": "# Bibliography\n\n```{bibliography}\n```\n"} | (pages or {})
        names = "\n".join(Path(file).with_suffix("").as_posix() for file in files)
        files["index.md"] = f"# Book\n\n```{{toctree}}\n{names}\n```\n"
        for file, content in files.items():
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).write_text(content, "utf8")
        return sphinx(tmp_path)

    return run


def sphinx(folder: Path, extensions=(), **options) -> Built:
    """Run Sphinx as the book does, but for its theme and without executing anything."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    out, said = folder / "_build/html", io.StringIO()
    config = {
        "extensions": [*USES, *extensions],
        "numfig": True,
        "math_numfig": True,
        "numfig_secnum_depth": 1,
        "nb_execution_mode": "off",
        "myst_enable_extensions": ["amsmath", "colon_fence", "dollarmath"],
        "bibtex_bibfiles": ["refs.bib"],
        "exclude_patterns": ["_build", "src", "book/08-unlisted.md"],
        "html_theme": "basic",
        "html_secnumber_suffix": " ",
    } | options
    with patch_docutils(), docutils_namespace():
        app = Sphinx(folder, None, out, folder / "_build/doctrees", "html", config, None, said)
        app.build()
    ledger = folder / "_build/ledger.json"
    rows = json.loads(ledger.read_text("utf8")) if ledger.exists() else None
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said.getvalue())
    return Built(
        [line for line in plain.splitlines() if "WARNING" in line or "ERROR" in line], rows, folder
    )


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


def plain(page: str) -> str:
    """The text of a page, without its tags."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", "", page)))


def spaced(text: str) -> str:
    return re.sub(r"\s+", "", text)


CHAPTER = """---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {name: python3, display_name: Python 3}
---
# Flow
"""
UNLABELLED = "\n\n## More\n\n$$ a = b $$\n"
QUOTED = "\n\n## Taken\n\n```{math}\n:label: eq:taken\n:class: quoted\na = b\n```\n"
STEP = "\n\n```{math}\n:class: step\na = b\n```\n"
TWICE = "# Other\n\n```{math}\n:label: eq:family\n:class: definition\na = b\n```\n"
MORE = "\n\n$$ c = d $$ (eq:more)\n"


@pytest.mark.parametrize(
    "text",
    [TEXT + STEP, TEXT + QUOTED + "{cite:t}`risken` has it.\n"],
    ids=["a step needs no label", "a quoted equation with its source"],
)
def test_marked_displays_pass(build, text):
    assert build(text=text).warnings == []


BROKEN = {
    "an equation without check": ({"text": TEXT + MORE}, "eq:more is neither checked on this page"),
    "no check at all": ({"records": ()}, "eq:family is neither checked on this page nor marked"),
    "a display without label": ({"text": TEXT + UNLABELLED}, "displayed equation without label"),
    "a quotation without source": ({"text": TEXT + QUOTED}, "eq:taken is quoted, but its section"),
    "a source in another section": (
        {"text": TEXT + QUOTED + "\n## Sources\n\n{cite:t}`risken`\n"},
        "eq:taken is quoted, but its section cites no source",
    ),
    "a check never shown to fail": ({"records": [record()]}, "was never shown to fail"),
    "refuted in another kind": (
        {"records": [record(), refuted(kind="law", bound=4.0, error=9.0)]},
        "(identity, bound 1e-09) was never shown to fail",
    ),
    "refuted at another bound": ({"records": [record(), refuted(bound=1e-3)]}, "was never shown"),
    "a mistake without its check": (
        {"records": [*SOUND, refuted(kind="law", bound=4.0, error=9.0)]},
        "no check of that label, kind and bound holds",
    ),
    "a mistake below the margin": (
        {"records": [*SOUND, refuted(error=9e-9)]},
        "the mistake reaches",
    ),
    "a law below six standard errors": (
        {
            "records": [
                *SOUND,
                record(kind="law", bound=4.0, error=1.0),
                refuted(kind="law", bound=4.0, error=5.9),
            ]
        },
        "the mistake reaches 5.9 only; to be caught it must reach 6",
    ),
    "nan": ({"records": [*SOUND, refuted(error=math.nan)]}, "must be finite numbers"),
    "infinity": ({"records": [*SOUND, refuted(error=math.inf)]}, "must be finite numbers"),
    "held with nan": ({"records": [*SOUND, record(error=math.nan)]}, "must be finite numbers"),
    "held above the bound": ({"records": [*SOUND, record(error=1e-8)]}, "held, though the error"),
    "no mistake named": ({"records": [*SOUND, refuted(mistake=None)]}, "names its mistake"),
    "a mistake of no kind": (
        {"records": [*SOUND, refuted(mistake="oops: x")]},
        "names its mistake",
    ),
    "a mistake without words": (
        {"records": [*SOUND, refuted(mistake="sign: ")]},
        "names its mistake",
    ),
    "an unknown kind": ({"records": [*SOUND, record(kind="hope")]}, "kind must be one of"),
    "an unknown verdict": (
        {"records": [*SOUND, record(verdict="maybe")]},
        "must be held or refuted",
    ),
    "an unknown label": (
        {"records": [*SOUND, record(label="eq:other"), refuted(label="eq:other")]},
        "a check names 'eq:other', which no page states",
    ),
    "a label owned twice": (
        {"pages": {"other.md": TWICE}},
        "duplicate label of equation eq:family",
    ),
    "a label of another form": (
        {"text": TEXT + "\n\n$$ c = d $$ (eq-more)\n"},
        "the label 'eq-more' of an equation should read eq:name",
    ),
    "a numbered environment": (
        {"text": TEXT + "\n\n\\begin{align}\na &= b\n\\end{align}\n"},
        "an amsmath environment cannot carry one",
    ),
    "a docstring that names no label": (
        {"package": PACKAGE.replace("eq:family", "eq:family, ch:path, eq:gone")},
        "onepath.dynamics.with_noise says Book: eq:gone, which no page states",
    ),
    "a claim that names no label": ({"claims": {"C3": ["eq:gone"]}}, "claim C3 names 'eq:gone'"),
    "a claim of nobody": ({"claims": {"C13": ["eq:family"]}}, "unknown claim 'C13'"),
    "a chapter outside the contents": (
        {"pages": {"book/08-unlisted.md": "# Flow\n"}},
        "missing from _toc.yml",
    ),
    "two chapters with one number": (
        {"pages": {"book/07-a.md": CHAPTER, "book/07-b.md": CHAPTER}},
        "07-a.md has the same number",
    ),
    "a number typed into a title": (
        {"pages": {"book/07-flow.md": CHAPTER.replace("# ", "# 7 · ")}},
        "carries a typed number",
    ),
    "a chapter without kernel": (
        {"pages": {"book/07-flow.md": "# Flow\n"}},
        "a chapter without kernelspec",
    ),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_fails_the_build(build, rule):
    book, complaint = BROKEN[rule]
    built = build(**book)
    assert any(complaint in warning for warning in built.warnings), built.warnings
    assert built.ledger is None


def test_a_docstring_may_name_whatever_has_a_label(build):
    named = "eq:family, thm:family, ch:path, ex:reverse"
    assert build(package=PACKAGE.replace("eq:family", named)).warnings == []


def test_a_build_that_warned_warns_again(build):
    assert build(records=()).warnings == build(records=()).warnings != []


def test_a_mended_book_builds_upon_the_broken_one(build):
    assert build(records=()).ledger is None
    assert build().warnings == []


def test_the_audit_uses_the_margins_of_the_package(monkeypatch):
    monkeypatch.syspath_prepend(str(EXTENSIONS))
    import ledger_rules

    from onepath import verify

    assert ledger_rules.MARGINS == verify.MARGINS
    assert ledger_rules.MISTAKES == verify.MISTAKES
