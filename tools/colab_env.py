"""`make colab`: every notebook, run as Colab would run it.

One clean environment holds what a Colab machine has before a notebook starts, at other versions
than our pins. The committed notebooks are copied to a folder elsewhere, with the address in their
first cell replaced by a copy of this checkout, and executed there one after the other; the first
one installs the package. Outputs are not compared (that is nbval's task, under the pins): here it
matters that every cell runs, that every check holds, and that the install left what was there.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import nbformat

from chapters import ROOT, BookError, chapters, project

# What Colab had in its release of late 2025, as far as a registry has it for this Python. torch is
# the exception: its wheels for a CPU alone are not on the default index, so it is the pinned one.
COLAB = (
    "numpy==2.0.2",
    "scipy==1.16.3",
    "matplotlib==3.10.0",
    "pandas==2.2.2",
    "scikit-learn==1.6.1",
    "tqdm==4.67.1",
    "ipykernel==6.17.1",
    "ipython==7.34.0",
    "ipywidgets==7.7.1",
    "jupyter-client==7.4.9",
    "nbclient==0.10.2",
)
LEFT_ALONE = ("torch", *(pin.partition("==")[0] for pin in COLAB))
VERSIONS = "import importlib.metadata as m; print([(n, m.version(n)) for n in {names}])"


def environment(folder: Path) -> Path:
    """A new environment like Colab's; its Python."""
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True, symlinks=True)
    python = folder / "bin" / "python"
    torch = next(
        line for line in (ROOT / "requirements.txt").read_text().split() if "torch==" in line
    )
    index = os.environ.get("TORCH_INDEX")
    call(python, "-m", "pip", "install", "-q", torch, *(["--index-url", index] if index else []))
    call(python, "-m", "pip", "install", "-q", "setuptools", *COLAB)
    return python


def call(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command that must succeed, away from this checkout; what it printed."""
    where = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=where, capture_output=True, text=True
    )
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-60:])
        raise BookError(f"{' '.join(map(str, command))} failed:\n{tail}")
    return done.stdout


def checkout(folder: Path) -> Path:
    """A copy of the files that git keeps: installing from it leaves no trace in the checkout."""
    names = call("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=ROOT)
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def local_copy(file: Path, source: Path, folder: Path) -> Path:
    """A notebook whose first cell installs from `source` instead of the public address."""
    about = project()
    address = f"git+{about.repository}@{about.tag}"
    notebook = nbformat.read(file, 4)
    first = notebook.cells[0]
    if address not in first.source:
        raise BookError(f"{file.name} must start by installing {address}; run: make notebooks")
    first.source = first.source.replace(address, source.as_uri())
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    copy = folder / file.name
    nbformat.write(notebook, copy)
    return copy


def main() -> int:
    try:
        with tempfile.TemporaryDirectory(prefix="colab-") as elsewhere:
            return run_all(Path(elsewhere))
    except BookError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1


def run_all(elsewhere: Path) -> int:
    print("a clean environment with what Colab has", flush=True)
    python = environment(ROOT / "_build" / "colab")
    names = list(LEFT_ALONE)
    before = call(python, "-c", VERSIONS.format(names=names), cwd=elsewhere)
    print(before.strip(), flush=True)
    source = checkout(elsewhere / "checkout")
    (elsewhere / "content").mkdir()
    failures = []
    for chapter in chapters():
        copy = local_copy(chapter.golden, source, elsewhere / "content")
        start = time.monotonic()
        try:
            jupyter = python.with_name("jupyter-execute")
            call(jupyter, "--timeout=600", "--kernel_name=python3", copy, cwd=copy.parent)
        except BookError as error:
            failures.append(chapter.name)
            print(f"FAILED {chapter.name}\n{error}", flush=True)
        else:
            print(f"ok     {chapter.name} {time.monotonic() - start:.0f} s", flush=True)
    after = call(python, "-c", VERSIONS.format(names=names), cwd=elsewhere)
    if after != before:
        raise BookError(f"the install must change nothing that was there; it left {after}")
    place = call(python, "-c", "import onepath; print(onepath.__file__)", cwd=elsewhere / "content")
    if "site-packages" not in place:
        raise BookError(f"the package must be the installed one, it was {place}")
    print(f"{len(chapters()) - len(failures)} passed, {len(failures)} failed")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
