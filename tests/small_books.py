"""Books of one or two pages for the tests of the extensions: sound until a test breaks one."""

import html
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
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


CHAPTER = """---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {name: python3, display_name: Python 3}
---
# Flow
"""
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


def small_book(
    folder: Path,
    records=SOUND,
    text=TEXT,
    pages=None,
    package=PACKAGE,
    claims=None,
    builder="html",
) -> Built:
    """Build a book of one chapter with these records, and what pages and package come with it."""
    (folder / "src/onepath").mkdir(parents=True, exist_ok=True)
    (folder / "src/onepath/dynamics.py").write_text(package, "utf8")
    (folder / "refs.bib").write_text(BOOK, "utf8")
    files = {"06-path.ipynb": chapter(records, text, claims)}
    files["ledger.md"] = "# Ledger\n\n```{ledger}\n```\n"
    files |= {"bibliography.md": "# Bibliography\n\n```{bibliography}\n```\n"} | (pages or {})
    names = "\n".join(Path(file).with_suffix("").as_posix() for file in files)
    files["index.md"] = f"# Book\n\n```{{toctree}}\n{names}\n```\n"
    for file, content in files.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(content, "utf8")
    return sphinx(folder, builder=builder)


def sphinx(folder: Path, extensions=(), builder="html", **options) -> Built:
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
        app = Sphinx(folder, None, out, folder / "_build/doctrees", builder, config, None, said)
        app.build()
    ledger = folder / "_build/ledger.json"
    rows = json.loads(ledger.read_text("utf8")) if ledger.exists() else None
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said.getvalue())
    return Built(
        [line for line in plain.splitlines() if "WARNING" in line or "ERROR" in line], rows, folder
    )


def plain(page: str) -> str:
    """The text of a page, without its tags."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", "", page)))
