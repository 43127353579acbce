"""Build the site from chapters that are executed already.

The builder's own cache looks at the cells of a chapter only, and an incremental build repeats
neither the reading nor the warnings of a page that it holds to be unchanged. Both would let a wrong
book pass. So its cache is filled here, from executions whose keys fit; what an unchanged source
does not show is forgotten; and only a build that succeeded is built upon.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn

from chapters import PACKAGE, ROOT, BookError, key, read
from execute import Run, say

EXECUTES = (
    "Executing notebook"  # what the builder logs when it does not find an execution in its cache
)
SITE_INPUTS = ("_config.yml", "_toc.yml", "requirements.txt", "pyproject.toml")
SITE_FOLDERS = (f"src/{PACKAGE}", "book/_ext", "book/_templates", "book/_static", "tools")


class BuildFailed(BookError):
    """The builder reported a warning or an error, or executed a chapter again."""


def build(runs: list[Run], root: Path = ROOT) -> None:
    """Build `_build/html` without executing anything; raises BuildFailed."""
    refuse_edited(runs, root)
    folder = root / "_build"
    state = folder / "site.json"
    now = {"site": site_key(root), "chapters": {r.chapter.name: _page_key(r) for r in runs}}
    before = json.loads(state.read_text("utf8")) if state.exists() else {}
    state.unlink(missing_ok=True)  # until this build has succeeded, there is none to build upon
    if before.get("site") != now["site"]:
        shutil.rmtree(folder / ".doctrees", ignore_errors=True)
        shutil.rmtree(folder / "html", ignore_errors=True)
    for name, mark in now["chapters"].items():
        if before.get("chapters", {}).get(name) != mark:
            (folder / ".doctrees" / "book" / f"{name}.doctree").unlink(missing_ok=True)
    fill_cache(runs, folder)
    _run_builder(root)
    state.write_text(json.dumps(now, indent=1), "utf8")


def refuse_edited(runs: list[Run], root: Path) -> None:
    """Raise BookError if a chapter, or what it depends on, was edited after it was executed."""
    edited = [r.chapter.name for r in runs if key(read(r.chapter.path, root), root) != r.key]
    if edited:
        raise BookError(
            f"{', '.join(edited)}: edited, or a module or pin edited, while the chapters ran; "
            "run the command again."
        )


def site_key(root: Path) -> str:
    """A hash of what shapes all pages: configuration, extensions, package, templates, pins."""
    files = [root / name for name in SITE_INPUTS]
    for name in SITE_FOLDERS:
        found = (f for f in (root / name).rglob("*") if "__pycache__" not in f.parts)
        files += sorted(f for f in found if f.is_file())
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(root)}\0".encode())
        digest.update(file.read_bytes() if file.exists() else b"")
    return digest.hexdigest()


def _page_key(run: Run) -> str:
    """Changes when a page must be made again though its source did not: run anew, a notebook."""
    return f"{run.key} {run.chapter.golden.exists()}"


def fill_cache(runs: list[Run], folder: Path) -> None:
    """Make the builder's cache anew, from these executions and nothing else."""
    path = folder / ".jupyter_cache"
    shutil.rmtree(path, ignore_errors=True)
    cache = get_cache(path)
    for run in runs:
        bundle = CacheBundleIn(
            run.notebook, str(run.chapter.path), data={"execution_seconds": run.seconds}
        )
        cache.cache_notebook_bundle(bundle, check_validity=True, overwrite=True)


def _run_builder(root: Path) -> None:
    builder = str(Path(sys.executable).with_name("jupyter-book"))
    command = [builder, "build", ".", "-W", "-n", "--keep-going"]
    again = []
    with subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            if EXECUTES in line:
                again.append(line.strip())
    if process.returncode:
        raise BuildFailed(
            f"the builder of the site stopped with code {process.returncode}; "
            "its warnings are above, and each of them is an error."
        )
    if again:
        raise BuildFailed(
            "the builder executed a notebook that had been executed already, so the page may "
            "differ from the notebook beside it:\n" + "\n".join(again)
        )


def report(runs: list[Run], root: Path = ROOT) -> None:
    """Where to open the book, which notebooks are missing, and the totals of the ledger."""
    missing = [r.chapter.golden.name for r in runs if not r.chapter.golden.exists()]
    if missing:
        say(f"No notebook yet beside its chapter: {', '.join(missing)}. Run: make notebooks")
    say("")
    say(totals(json.loads((root / "_build" / "ledger.json").read_text("utf8"))))
    say(f"Open {(root / '_build' / 'html' / 'index.html').as_uri()} or run: make serve")


def totals(ledger: list[dict]) -> str:
    """The ledger in one line, from its rows."""
    verdicts = Counter(row["verdict"] for row in ledger)
    held = {row["label"] for row in ledger if row["verdict"] == "held"}
    marked = {row["label"]: row["verdict"] for row in ledger if row["label"] not in held}
    others = Counter(verdict for verdict in marked.values() if verdict != "refuted")
    counts = [f"{len(held)} checked", *(f"{n} {name}" for name, n in sorted(others.items()))]
    return (
        f"Ledger: {len(held | set(marked))} labels ({', '.join(counts)}); "
        f"{verdicts['held']} checks hold, {verdicts['refuted']} planted mistakes are caught."
    )
