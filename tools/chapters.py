"""The chapters of the book as notebooks, and the key that says when an execution may be reused.

A chapter is a file `book/NN-name.md` in MyST Markdown with a kernelspec. It is read with the reader
of the site's builder, so that what is executed here is what the builder looks for in its cache.
"""

import ast
import hashlib
import json
import os
import platform
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbformat
import yaml
from myst_nb.core.read import read_myst_markdown_notebook
from myst_parser.config.main import MdParserConfig

ROOT = Path(__file__).resolve().parents[1]
CHAPTER = re.compile(r"(\d\d)-[\w-]+\.md")
PACKAGE = "onepath"


class BookError(ValueError):
    """What an author did that a command of the book refuses: the rule, what came, what to do."""


@dataclass(frozen=True)
class Project:
    """Name, version and addresses; `pyproject.toml` is the one place that states them."""

    name: str
    version: str
    repository: str
    site: str

    @property
    def tag(self) -> str:
        return f"v{self.version}"


def project(root: Path = ROOT) -> Project:
    table = tomllib.loads((root / "pyproject.toml").read_text("utf8"))["project"]
    urls = table["urls"]
    return Project(
        table["name"],
        table["version"],
        urls["Repository"].rstrip("/"),
        urls["Documentation"].rstrip("/"),
    )


@dataclass(frozen=True)
class Chapter:
    """One source file and the notebook in it."""

    path: Path
    notebook: nbformat.NotebookNode

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def number(self) -> int:
        return int(self.name[:2])

    @property
    def docname(self) -> str:
        return f"book/{self.name}"

    @property
    def golden(self) -> Path:
        """The committed notebook beside the source."""
        return self.path.with_suffix(".ipynb")


def chapters(root: Path = ROOT, names: list[str] | None = None) -> list[Chapter]:
    """All chapters in order, or those whose file stem or number is in `names`."""
    found = [read(path, root) for path in sorted((root / "book").glob("*.md")) if is_chapter(path)]
    if not found:
        raise BookError(f"there must be a chapter book/NN-name.md, found none in {root / 'book'}.")
    if not names:
        return found
    chosen = [c for c in found if c.name in names or c.name[:2] in names]
    missing = [n for n in names if n not in {x for c in chosen for x in (c.name, c.name[:2])}]
    if missing:
        listed = ", ".join(c.name for c in found)
        raise BookError(f"no chapter is called {', '.join(missing)}; there are {listed}.")
    return chosen


def is_chapter(path: Path) -> bool:
    return CHAPTER.fullmatch(path.name) is not None


def read(path: Path, root: Path = ROOT) -> Chapter:
    """Read a chapter as the builder of the site reads it.

    Raises BookError without a kernelspec, or where a mark would keep a cell's output from being
    compared.
    """
    options = yaml.safe_load((root / "_config.yml").read_text("utf8")).get("parse") or {}
    config = MdParserConfig(enable_extensions=set(options.get("myst_enable_extensions") or ()))
    text = path.read_text("utf8")
    notebook = read_myst_markdown_notebook(text, config=config, add_source_map=True, path=path)
    if "name" not in notebook.metadata.get("kernelspec", {}):
        raise BookError(
            f"{path.name}: a file book/NN-name.md is a chapter and its front matter needs a "
            "kernelspec; add `kernelspec: {name: python3, display_name: Python 3}`, or rename it."
        )
    for cell in code_cells(notebook):
        tags = set(cell.metadata.get("tags", ()))
        marks = {"nbval-skip", "nbval-ignore-output", "skip-execution", "raises-exception"}
        if "NBVAL_" in cell.source or tags & marks:
            raise BookError(
                f"{path.name}: every cell runs and is compared, so no cell may carry "
                f"{', '.join(sorted(tags & marks)) or 'an NBVAL_ comment'}; remove the mark."
            )
    return Chapter(path, notebook)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def key(chapter: Chapter, root: Path = ROOT) -> str:
    """A hash of everything that the outputs of a chapter depend on.

    That is: its cells and kernel; the modules of the package that it imports, and those that these
    import; all other files of the package (data, weights); the pins; the Python version; the device
    that was asked for; and the code that executes it. An edit of a module leaves alone the chapters
    that do not use it.
    """
    cells = [(cell.source, cell.metadata) for cell in code_cells(chapter.notebook)]
    kernel = chapter.notebook.metadata.get("kernelspec")
    parts = [json.dumps([cells, kernel], sort_keys=True).encode()]
    parts += [platform.python_version().encode(), os.environ.get("ONEPATH_DEVICE", "cpu").encode()]
    package = root / "src" / PACKAGE
    code = [package / f"{name}.py" for name in sorted(closure(chapter, root))]
    data = [f for f in package.rglob("*") if f.is_file() and f.suffix not in (".py", ".pyc")]
    tools = [Path(__file__), Path(__file__).with_name("execute.py")]
    for file in [*code, *sorted(data), root / "requirements.txt", *tools]:
        parts += [file.name.encode(), file.read_bytes()]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def closure(chapter: Chapter, root: Path = ROOT) -> set[str]:
    """Modules of the package that a chapter uses in the end; all, if a cell is no plain Python."""
    package = root / "src" / PACKAGE
    every = {file.stem for file in package.glob("*.py")}
    try:
        trees = [ast.parse(cell.source) for cell in code_cells(chapter.notebook)]
    except SyntaxError:
        return every
    todo, found = set().union(*(imported(tree) for tree in trees)), set()
    while todo:
        name = todo.pop()
        if name in every and name not in found:
            found.add(name)
            todo |= module_imports(package / f"{name}.py")
    return found


def imported(tree: ast.AST) -> set[str]:
    """Modules of the package that a syntax tree imports; importing any runs `__init__`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = f"{PACKAGE}.{base}".rstrip(".")
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    ours = [name.split(".") for name in names if name.split(".")[0] == PACKAGE]
    return {parts[1] for parts in ours if len(parts) > 1} | ({"__init__"} if ours else set())


@cache
def _imports(text: str) -> frozenset[str]:
    return frozenset(imported(ast.parse(text)))


def module_imports(file: Path) -> set[str]:
    return set(_imports(file.read_text("utf8")))
