"""Execute the chapters, build the site from them, and write or verify the notebooks beside them.

python tools/notebooks.py book           execute what changed, build the site python
tools/notebooks.py write [06 …]   write book/NN-name.ipynb from the executions python
tools/notebooks.py check [06 …]   are the committed notebooks what a fresh execution gives?

The Markdown sources are the only ones; a notebook is what Colab opens and what nbval replays.
"""

import argparse
import re
import sys
from pathlib import Path
from textwrap import indent

import nbformat

from build_site import build, report
from chapters import ROOT, BookError, Project, chapters, closure, code_cells, is_chapter, project
from colab import Converter
from execute import Run, execute_all, replace, say
from labels import Labels, site_labels
from prose import Glued, Prose
from replay import GLUED, alike, difference, kept

HIDDEN = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
INSTALL = """\
# In Colab this installs the package of the book; where it is installed already, it does nothing.
import importlib.util

if importlib.util.find_spec("{name}") is None:
    %pip install -q "{requirement} @ git+{repository}@{tag}"
"""
HOLE = Glued("\ue000", "\ue001")  # private-use characters stand around a value that the run gives


def golden(run: Run, labels: Labels, about: Project, root: Path = ROOT, hole: Glued | None = None):
    """The notebook of a chapter as it is committed: plain Markdown, text outputs, repeatable ids.

    With `hole`, values that the run gives to the prose stand between its marks.
    """
    converter = Converter(Prose(run.chapter, labels, about, glued(run.notebook), root, hole))
    extra = "[data]" if "data" in closure(run.chapter, root) else ""
    install = INSTALL.format(
        name=about.name, requirement=about.name + extra, repository=about.repository, tag=about.tag
    )
    cells = [_code(install.rstrip(), [], [])]
    for cell in run.notebook.cells:
        if cell.cell_type == "code":
            if cell.execution_count is None:
                raise BookError(f"{run.chapter.path.name}: a code cell is empty; remove it.")
            cells.append(
                _code(cell.source, list(cell.metadata.get("tags", ())), kept(cell.outputs))
            )
            if caption := converter.caption(cell.metadata):
                cells.append(nbformat.v4.new_markdown_cell(caption))
        elif cell.cell_type == "markdown" and (text := converter.text(cell.source)):
            cells.append(nbformat.v4.new_markdown_cell(text))
    count = 0
    for index, cell in enumerate(cells):
        cell["id"] = f"cell-{index:03d}"
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output["execution_count"] = count
    metadata = {
        "colab": {"toc_visible": True},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    nbformat.validate(notebook)
    return notebook


def _code(source: str, tags: list[str], outputs: list) -> nbformat.NotebookNode:
    metadata: dict = {"tags": tags} if tags else {}
    if HIDDEN & set(tags):
        metadata["jupyter"] = {"source_hidden": True}
    return nbformat.v4.new_code_cell(source, metadata=metadata, outputs=outputs)


def glued(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """Values that the cells give to the prose, by name."""
    values = {}
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if name := output.get("metadata", {}).get("scrapbook", {}).get("name"):
                values[name] = output["data"][GLUED]
    return values


def stale(run: Run, labels: Labels, about: Project, root: Path = ROOT) -> str | None:
    """Why the committed notebook is not what this execution gives; None if it is."""
    file = run.chapter.golden
    if not file.exists():
        return "it does not exist"
    old, new = nbformat.read(file, 4), golden(run, labels, about, root)
    pattern = golden(run, labels, about, root, HOLE)
    if old.metadata != new.metadata:
        return "its metadata differ"
    if len(old.cells) != len(new.cells):
        return f"it has {len(old.cells)} cells, its source gives {len(new.cells)}"
    for a, b, p in zip(old.cells, new.cells, pattern.cells):
        if (a.cell_type, a.get("id"), a.metadata) != (b.cell_type, b.id, b.metadata):
            return f"cell {b.id}: type, id or metadata differ"
        if a.source != b.source and not _alike_in_holes(a.source, b.source, p.source):
            return f"cell {b.id}: its source differs"
        if b.cell_type == "code":
            if a.execution_count != b.execution_count:
                return f"cell {b.id}: execution count {a.execution_count}, not {b.execution_count}"
            if kept(a.outputs) != a.outputs:
                return f"cell {b.id}: it holds outputs that are not text"
            if found := difference(b.outputs, a.outputs):
                return f"cell {b.id}: {found}"
    return None


def _alike_in_holes(old: str, new: str, pattern: str) -> bool:
    """Whether two texts are equal but for values of a run, and those within the tolerance."""
    parts = re.split(f"{HOLE.before}[^{HOLE.after}]*{HOLE.after}", pattern)
    shape = re.compile("(.*?)".join(re.escape(part) for part in parts), re.S)
    a, b = shape.fullmatch(old), shape.fullmatch(new)
    return bool(a and b) and all(alike(x, y) for x, y in zip(a.groups(), b.groups()))


def write(names: list[str]) -> None:
    """Write the notebooks of the named chapters, or of all; none of them if one cannot be made."""
    about, labels = project(), site_labels()
    texts = {}
    for run in execute_all(chapters(names=names)):
        texts[run.chapter.golden] = nbformat.writes(golden(run, labels, about)) + "\n"
    for file, text in texts.items():
        if file.exists() and file.read_text("utf8") == text:
            say(f"as it was  {file.relative_to(ROOT)}")
        else:
            replace(file, text)
            say(f"written    {file.relative_to(ROOT)}")


def check(names: list[str]) -> int:
    """Say of each committed notebook whether it is up to date; 1 if one is not."""
    about, labels, bad = project(), site_labels(), 0
    for run in execute_all(chapters(names=names)):
        reason = stale(run, labels, about)
        bad += reason is not None
        say(f"{'STALE' if reason else 'ok   '} {run.chapter.golden.relative_to(ROOT)}")
        if reason:
            say(indent(reason, " " * 6, lambda line: True))
    for file in sorted((ROOT / "book").glob("*.ipynb")):
        if not is_chapter(file.with_suffix(".md")) or not file.with_suffix(".md").exists():
            bad += 1
            say(f"STALE {file.relative_to(ROOT)}\n      no chapter of this name")
    if bad:
        say("Notebooks are generated. Run: make notebooks")
    return int(bad > 0)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("book", "write", "check"))
    parser.add_argument("chapters", nargs="*", help="numbers or file stems; all without any")
    options = parser.parse_args(arguments)
    try:
        if options.command == "write":
            write(options.chapters)
        elif options.command == "check":
            return check(options.chapters)
        else:
            runs = execute_all(chapters())
            build(runs)
            report(runs)
    except BookError as error:
        print(f"\n{error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
