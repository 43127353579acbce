"""Chapters are executed once, kept under a key of all they depend on, and fail loudly."""

from pathlib import Path

import pytest

import build_site
import chapters
import execute
from chapters import BookError

HEAD = "---\nkernelspec: {name: python3, display_name: Python 3}\n---\n"

# Execution and its key.


def test_a_key_changes_with_all_that_an_output_depends_on(tmp_path):
    def write(name, text):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf8")

    code = "```{code-cell} python\nfrom onepath.b import f\n```\n"
    files = {
        "_config.yml": "{}",
        "requirements.txt": "torch==1",
        "book/01-a.md": HEAD + "Text.\n\n" + code,
        "src/onepath/__init__.py": "",
        "src/onepath/a.py": "",
        "src/onepath/b.py": "from .a import g",
        "src/onepath/c.py": "",
        "src/onepath/weights/w.bin": "1",
    }
    for name, text in files.items():
        write(name, text)

    def key_with(name, text):
        write(name, text)
        found = chapters.key(chapters.read(tmp_path / "book" / "01-a.md", tmp_path), tmp_path)
        write(name, files[name])
        return found

    same = key_with("_config.yml", files["_config.yml"])
    assert key_with("book/01-a.md", HEAD + "Other text.\n\n" + code) == same
    assert key_with("src/onepath/c.py", "edited = 1") == same
    for name in (
        "requirements.txt",
        *[f"src/onepath/{n}" for n in ("__init__.py", "a.py", "b.py")],
    ):
        assert key_with(name, files[name] + "\n# edited") != same, name
    assert key_with("src/onepath/weights/w.bin", "2") != same
    assert key_with("book/01-a.md", HEAD + code.replace(" f", " f as h")) != same
    magic = HEAD + "```{code-cell} python\n%load_ext x\n```\n"
    write("book/01-a.md", magic)
    assert chapters.closure(chapters.read(tmp_path / "book" / "01-a.md", tmp_path), tmp_path) == {
        "__init__", "a", "b", "c"
    }  # fmt: skip


def small_book(root: Path, cell: str) -> chapters.Chapter:
    """A book of one chapter with one cell."""
    (root / "book").mkdir(exist_ok=True)
    (root / "_config.yml").write_text("{}")
    (root / "requirements.txt").write_text("")
    path = root / "book" / "01-a.md"
    path.write_text(f"{HEAD}# Title\n\n```{{code-cell}} python\n{cell}\n```\n", "utf8")
    return chapters.read(path, root)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import warnings\nwarnings.warn('careful')", "writes nothing to stderr"),
        ("object()", "memory address"),
        ("import os\nos._exit(1)", "died"),
    ],
)
def test_a_chapter_that_fails_says_where_and_leaves_nothing(tmp_path, cell, reason):
    chapter = small_book(tmp_path, cell)
    chapter.golden.write_text("committed", "utf8")
    with pytest.raises(execute.ChapterFailed, match="01-a.md, code cell 1 failed") as raised:
        execute.execute(chapter, tmp_path)
    assert reason.lower() in str(raised.value).lower()
    assert cell.splitlines()[-1] in str(raised.value)
    assert chapter.golden.read_text("utf8") == "committed"
    assert not execute.store(tmp_path).exists()


def test_an_execution_is_kept_until_its_key_changes(tmp_path):
    chapter = small_book(tmp_path, "print(1)")
    execute.execute(chapter, tmp_path)
    assert execute.stored(chapter, tmp_path).notebook.cells[1].outputs[0].text == "1\n"
    (tmp_path / "requirements.txt").write_text("torch==2")
    assert execute.stored(chapter, tmp_path) is None


def test_what_a_kept_execution_gave_stands_in_the_prose_of_now(tmp_path):
    run = execute.execute(small_book(tmp_path, "print(1)"), tmp_path)
    page = run.chapter.path
    page.write_text(page.read_text("utf8").replace("# Title", "# Another title\n\nA word."), "utf8")
    edited = chapters.read(page, tmp_path)
    run.notebook.metadata["widgets"] = {"a": "state"}  # as the kernel gives it
    execute.keep(run, tmp_path)
    now = execute.stored(edited, tmp_path).notebook
    assert now.cells[0].source == "# Another title\n\nA word."
    ran, kept = run.notebook.cells[1], now.cells[1]
    assert (kept.outputs, kept.execution_count) == (ran.outputs, ran.execution_count)
    assert ran.outputs[0].text == "1\n"
    assert now.metadata.language_info == run.notebook.metadata.language_info
    assert now.metadata.widgets == {"a": "state"}


def test_the_environment_of_a_kernel_is_the_one_of_the_key(tmp_path, monkeypatch):
    for name in execute.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    chapter = small_book(tmp_path, "print(1)")
    before = chapters.key(chapter, tmp_path)
    for name, value in execute.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    assert chapters.key(chapter, tmp_path) == before
    monkeypatch.setenv("ONEPATH_DEVICE", "cuda")
    assert chapters.key(chapter, tmp_path) != before


def test_what_is_edited_while_a_chapter_runs_does_not_pass_for_what_ran(tmp_path):
    edit = "import pathlib\npathlib.Path('../requirements.txt').write_text('torch==2')"
    run = execute.execute(small_book(tmp_path, edit), tmp_path)
    assert execute.stored(run.chapter, tmp_path) is None
    with pytest.raises(BookError, match="01-a: edited"):
        build_site.build([run], tmp_path)


def test_an_edit_of_what_shapes_the_site_discards_its_pages(tmp_path):
    for name in ("book/_ext/a.py", "src/onepath/a.py", "_config.yml", "requirements.txt"):
        before = build_site.site_key(tmp_path)
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("edited", "utf8")
        assert build_site.site_key(tmp_path) != before, name


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    file = tmp_path / "a.ipynb"
    file.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        execute.replace(file, "half \ud800")
    assert file.read_text() == "old"
    execute.replace(file, "new")
    assert file.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.ipynb"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("# No front matter\n", "needs a kernelspec"),
        (HEAD + "```{code-cell}\n:tags: [nbval-skip]\n1\n```\n", "remove the mark"),
        (HEAD + "```{code-cell}\n1  # NBVAL_IGNORE_OUTPUT\n```\n", "remove the mark"),
    ],
)
def test_a_page_that_is_no_sound_chapter_is_refused(tmp_path, text, reason):
    (tmp_path / "_config.yml").write_text("{}")
    (tmp_path / "01-a.md").write_text(text, "utf8")
    with pytest.raises(BookError, match=reason):
        chapters.read(tmp_path / "01-a.md", tmp_path)


def test_an_unknown_chapter_is_named_with_those_that_exist():
    with pytest.raises(BookError, match="no chapter is called 99; there are "):
        chapters.chapters(names=["99"])


def test_the_totals_of_the_ledger_count_labels_checks_and_mistakes():
    rows = [
        {"label": "eq:a", "verdict": "held"},
        {"label": "eq:a", "verdict": "refuted"},
        {"label": "eq:b", "verdict": "definition"},
    ]
    assert build_site.totals(rows) == (
        "Ledger: 2 labels (1 checked, 1 definition); 1 checks hold, 1 planted mistakes are caught."
    )
