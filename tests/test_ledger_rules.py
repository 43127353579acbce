"""Each broken rule fails the build of the book: the ledger's audit, rule by rule."""

import math
from functools import partial

import pytest

from small_books import (
    CHAPTER,
    EXTENSIONS,
    PACKAGE,
    SOUND,
    TEXT,
    record,
    refuted,
    small_book,
)


@pytest.fixture
def build(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXTENSIONS))
    return partial(small_book, tmp_path, builder="dummy")  # warnings, and no pages


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
