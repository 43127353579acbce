"""The notebooks: what Colab is shown, and that a stale or edited one is refused."""

import copy
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

import build_site
import chapters
import execute
import labels
import notebooks
from chapters import BookError
from colab import Converter
from prose import Prose

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "tests" / "pages"
CONFIGURATION = """
import sys, yaml
sys.path.insert(0, {ext!r})
book = yaml.safe_load(open({config!r}))
extensions = ["myst_nb", "sphinx_proof", "sphinx_exercise", "sphinxcontrib.bibtex", "numbering"]
myst_enable_extensions = book["parse"]["myst_enable_extensions"]
numfig = True
math_numfig, numfig_secnum_depth = True, 1
bibtex_bibfiles, bibtex_reference_style = ["references.bib"], "author_year"
nb_execution_mode, nb_execution_cache_path = "cache", "_build/.jupyter_cache"
suppress_warnings = ["myst.domains"]
exclude_patterns = ["_build"]
"""


# A small book with one page that uses everything.


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    """The pages of `tests/pages` as a book, executed by the runner and built from its cache."""
    root = tmp_path_factory.mktemp("book")
    shutil.copytree(PAGES, root / "book")
    shutil.copy(ROOT / "book" / "references.bib", root)
    for name in ("_config.yml", "pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, root)
    names = {"ext": str(ROOT / "book" / "_ext"), "config": str(root / "_config.yml")}
    (root / "conf.py").write_text(CONFIGURATION.format(**names), "utf8")
    toctree = "```{toctree}\n:numbered:\nbook/03-every-directive\nbook/other\n```\n"
    (root / "index.md").write_text(f"# Book\n\n{toctree}", "utf8")
    build_site.fill_cache([execute.execute(page(root), root)], root / "_build")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "-n",
        "-d",
        "_build/.doctrees",
        ".",
        "_build/html",
    ]
    built = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert build_site.EXECUTES not in built.stdout + built.stderr
    (root / "_build" / "site.json").write_text("{}", "utf8")
    return root


def page(root: Path) -> chapters.Chapter:
    return chapters.read(root / "book" / "03-every-directive.md", root)


def made(root: Path) -> NotebookNode:
    run = execute.stored(page(root), root)
    return notebooks.golden(run, labels.site_labels(root), chapters.project(), root)


def prose_of(notebook: NotebookNode) -> str:
    """All Markdown of a notebook without listings, code spans and mathematics between dollars."""
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    text = re.sub(r"^(> )*```.*?^(> )*```$", "", text, flags=re.M | re.S)
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", text)


def test_the_page_uses_everything_that_a_chapter_may_use():
    rules = (ROOT / "CONTRIBUTING.md").read_text("utf8")
    (paragraph,) = re.findall(r"^Directives that a chapter may use.*?\n\n", rules, re.M | re.S)
    directives, roles = paragraph.split("Roles:")
    text = (PAGES / "03-every-directive.md").read_text("utf8")
    used = set(re.findall(r"^ *[`:]{3,}\{([\w:-]+)\}", text, re.M)) - {"code-cell"}
    assert set(re.findall(r"`([\w:-]+)`", directives)) == used
    used = set(re.findall(r"(?<!`)\{([\w:]+)\}`(?!`)", text)) - {"eq"}
    assert set(re.findall(r"`([\w:-]+)`", roles)) == used | {"eq"}


def test_no_directive_role_label_or_comment_is_left_raw(book):
    text = prose_of(made(book))
    for raw in (r":::", r"\{[\w:-]+\}", r"\$\$ *\([\w:-]+\)", r"^\([\w:-]+\)=", r"^:\w+:", r"^%"):
        assert not re.search(raw, re.sub(r"\$\$.*?\$\$|\$[^$]+\$", "", text, flags=re.S), re.M), raw
    assert not re.search(r"\$\$ *\([\w:-]+\)", text)


def test_listings_and_code_spans_are_left_alone(book):
    text = "\n".join(cell.source for cell in made(book).cells)
    assert "a literal `{eq}` stay, and so does ``{eq}`eq:one` `` in a listing" in text
    assert 'untouched = "{eq}`eq:one`"' in text
    assert "def twice(x):" in text and "def once(x):" not in text


def test_numbers_of_the_notebook_are_those_of_the_page(book):
    html = (book / "_build" / "html" / "book" / "03-every-directive.html").read_text("utf8")
    text = "\n".join(cell.source for cell in made(book).cells)
    equations = re.findall(r'<span class="eqno">\((3\.\d+)\)', html)
    assert len(equations) == 6
    assert re.findall(r"\\tag\{(3\.\d+)\}", text) == equations
    titles = re.findall(r'<span class="caption-number">(\w+ 3\.\d+)', html)
    titles = [title for title in titles if not title.startswith(("Fig", "Table"))]
    assert len(titles) == 11
    assert re.findall(r"^> \*\*([A-Z]\w+ 3\.\d+)\*\*", text, re.M) == titles
    figures = re.findall(r'<span class="caption-number">(?:Fig\.|Figure) (3\.\d+)', html)
    assert re.findall(r"^\*\*Figure (3\.\d+)\.\*\*", text, re.M) == figures == ["3.1", "3.2"]
    sections = re.findall(r'<h\d>.*?section-number">([\d.]+?)\.? ', html)
    assert re.findall(r"^#+ ([\d.]+) ", text, re.M) == sections


def test_every_link_into_the_site_has_its_target(book):
    site = chapters.project().site
    found = re.findall(rf"\]\({re.escape(site)}/([^)#]+)(?:#([^)]+))?\)", prose_of(made(book)))
    assert len(found) > 25
    for file, anchor in found:
        html = book / "_build" / "html" / file
        assert html.exists(), file
        assert not anchor or f'id="{anchor}"' in html.read_text("utf8"), anchor


@pytest.mark.parametrize(
    "file", sorted((ROOT / "book").glob("*.ipynb")), ids=lambda file: file.stem
)
def test_a_committed_notebook_shows_nothing_raw_and_leads_to_what_is_there(file):
    text = prose_of(nbformat.read(file, 4))
    assert not re.search(r":::|\{[\w:-]+\}`|\$\$ *\([a-z]+:|^\([\w:-]+\)=", text, re.M)
    html, site = ROOT / "_build" / "html", chapters.project().site
    if not html.exists():
        pytest.skip("links of the notebooks: no built site; make book")
    for target, anchor in re.findall(rf"\]\({re.escape(site)}/([^)#]+)(?:#([^)]+))?\)", text):
        assert (html / target).exists(), target
        assert not anchor or f'id="{anchor}"' in (html / target).read_text("utf8"), anchor


def test_a_display_in_a_box_is_on_one_line(book):
    text = "\n".join(cell.source for cell in made(book).cells)
    assert re.search(r"^> \$\$ o = p , \\tag\{3\.\d\} \$\$$", text, re.M)
    assert re.search(r"^> \$\$ q = r \\tag\{3\.\d\} \$\$$", text, re.M)
    assert not re.search(r"^> \$\$$", text, re.M)


def test_lines_of_an_equation_are_aligned_and_comments_dropped(book):
    text = "\n".join(cell.source for cell in made(book).cells)
    assert "$$\n\\begin{aligned}\na = b \\\\\nc = d\n\\end{aligned}\n\\tag{3.1}\n$$" in text
    assert "not for the reader" not in text and "comment of the author" not in text


def test_references_read_as_on_the_page(book):
    text = "\n".join(cell.source for cell in made(book).cells)
    for shown in (
        "[Lipman et al. (2023)](", "([Song et al., 2021](", "[Ho et al., 2020](", "[Figure 3.2](",
        "[Picture 3.1](", "[Table 3.1](", "[Every directive](", "[Algorithm 3.1](", "[Remark 3.2](",
        "[Another page](", "[the other page](", "[outside](https://example.org/a_b)",
        "42.25 or 42.2", r"$\Vert x\Vert $", "> **Theorem 3.1** (With [(3.1)](",
    ):  # fmt: skip
        assert shown in text, shown


@pytest.mark.parametrize(
    "source",
    [
        "```{tableofcontents}\n```",
        "{abbr}`HTML (a language)`",
        "\\begin{align}\na\n\\end{align}",
        "{eq}`eq:nowhere`",
        "{cite:t}`nobody1900`",
        "{glue:text}`unknown`",
        "[a](figures/listing.py)",
        "```{literalinclude} nowhere.py\n```",
        "$$ a",
    ],
)
def test_what_has_no_plain_form_is_refused(book, source):
    converter = Converter(Prose(page(book), labels.site_labels(book), chapters.project(), {}, book))
    with pytest.raises(BookError, match="03-every-directive.md: .*has no plain form"):
        converter.text(source)


def test_a_notebook_made_for_an_older_site_is_refused(book):
    known = labels.site_labels(book)
    converter = Converter(Prose(page(book), known, chapters.project(), {}, book))
    with pytest.raises(BookError, match="equation 3.1 in the notebook and 3.2"):
        converter.text("$$ e = f $$ (eq:two)")


# Stale and hand-edited notebooks.


@pytest.fixture
def committed(book):
    """The notebook as committed; the fixture returns a function that edits it and asks."""
    file = page(book).golden
    run, known = execute.stored(page(book), book), labels.site_labels(book)
    notebook = made(book)

    def reason(edit=lambda notebook: None) -> str | None:
        changed = copy.deepcopy(notebook)
        edit(changed)
        nbformat.write(changed, file)
        return notebooks.stale(run, known, chapters.project(), book)

    yield reason
    file.unlink(missing_ok=True)


def test_the_notebook_that_was_made_is_in_step(committed):
    assert committed() is None


def test_values_of_the_run_in_the_prose_may_differ_by_rounding_only(committed):
    def set_answer(text):
        def edit(notebook):
            cell = next(c for c in notebook.cells if "42.25 or 42.2" in c.source)
            cell.source = cell.source.replace("42.25 or 42.2", text)

        return edit

    assert committed(set_answer("42.26 or 42.3")) is None
    assert "source differs" in committed(set_answer("43.25 or 42.2"))
    assert "source differs" in committed(set_answer("42.25 and 42.2"))


def cells(notebook: NotebookNode, kind: str) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == kind]


EDITS = {
    "a number in the prose": lambda n: cells(n, "markdown")[0].update(source="# 3.5"),
    "code": lambda n: cells(n, "code")[1].update(source="1 + 1  # edited"),
    "an output": lambda n: cells(n, "code")[2].outputs[0].data.update({"text/plain": "another"}),
    "an output dropped": lambda n: cells(n, "code")[2].update(outputs=[]),
    "a picture kept": lambda n: cells(n, "code")[2].outputs[0].data.update({"image/png": "iVBO"}),
    "an execution count dropped": lambda n: cells(n, "code")[2].update(execution_count=None),
    "a cell dropped": lambda n: n.cells.pop(),
    "an id": lambda n: n.cells[3].update(id="mine"),
    "a tag": lambda n: cells(n, "code")[2].metadata.update(tags=["nbval-skip"]),
    "the kernel": lambda n: n.metadata.kernelspec.update(name="other"),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_stale_or_edited_notebook_is_refused(committed, edit):
    assert committed(edit)


def test_a_missing_notebook_is_refused(book):
    run = execute.stored(page(book), book)
    assert not run.chapter.golden.exists()
    assert notebooks.stale(run, labels.site_labels(book), chapters.project(), book)


def test_the_first_cell_installs_the_tag_and_only_there(book):
    first, *rest = made(book).cells
    about = chapters.project()
    assert f"git+{about.repository}@v{about.version}" in first.source
    assert not any("pip install" in cell.source for cell in rest)
