"""The package installs from the checkout, alone, and leaves torch and numpy as they are."""

import importlib.metadata as metadata
import json
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from chapters import chapters, project
from notebooks import INSTALL

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.bare
KEPT = ("torch", "numpy")


def name_of(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()


def needed(*names: str) -> dict[str, metadata.Distribution]:
    """Distributions and all that they require here, without extras."""
    found: dict[str, metadata.Distribution] = {}
    todo = [name_of(name) for name in names]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found[name] = metadata.distribution(name)
        wanted = (Requirement(text) for text in found[name].requires or ())
        todo += [
            name_of(r.name) for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})
        ]
    return found


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The files of this checkout that git would keep: a build in place would leave traces in it."""
    copy = tmp_path_factory.mktemp("checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "src"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in [*filter(None, listed.split("\0")), "pyproject.toml", "README.md"]:
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The Python of an environment that has torch, numpy and what they need, and nothing else.

    They are linked from this environment, so that no gigabyte is copied or fetched.
    """
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=True, symlinks=True)
    links = folder / "links"
    links.mkdir()
    for distribution in needed(*KEPT).values():
        for top in {Path(file).parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            target = Path(distribution.locate_file(top)).resolve()
            if not (links / top).exists():
                (links / top).symlink_to(target)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "uninstall", "-q", "-y", "setuptools")  # its own is older than torch's
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    (Path(run(python, "-c", where).strip()) / "links.pth").write_text(f"{links}\n")
    return python


def run(python: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(python), *arguments], cwd=python.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def versions(python: Path) -> str:
    names = ", ".join(KEPT)
    return run(
        python, "-c", f"import {names}; print([(m.__version__, m.__file__) for m in ({names})])"
    )


def requirement(checkout: Path, extra: str = "") -> str:
    """What the first cell of a notebook installs, with the address replaced by the checkout."""
    about = project()
    address = f"git+{about.repository}@{about.tag}"
    cell = INSTALL.format(
        name=about.name,
        requirement=about.name + extra,
        repository=about.repository,
        tag=about.tag,
    )
    (asked,) = re.findall(r'%pip install -q "([^"]+)"', cell)
    assert address in asked
    return asked.replace(address, checkout.as_uri())


def test_the_install_cell_changes_neither_torch_nor_numpy(checkout, python, tmp_path):
    before, report = versions(python), tmp_path / "report.json"
    run(python, "-m", "pip", "install", "-q", "--report", str(report), requirement(checkout))
    installed = {
        name_of(entry["metadata"]["name"]) for entry in json.loads(report.read_text())["install"]
    }
    assert "onepath" in installed
    assert not installed & needed(*KEPT).keys()
    assert versions(python) == before
    modules = "import onepath, importlib; print(onepath.__file__); "
    modules += "[importlib.import_module(f'onepath.{m}') for m in onepath.READING_ORDER]"
    assert str(python.parents[1]) in run(python, "-c", modules)


def test_the_data_extra_would_change_neither(checkout, python, tmp_path):
    report = tmp_path / "report.json"
    options = ["-q", "--dry-run", "--report", str(report)]
    run(python, "-m", "pip", "install", *options, requirement(checkout, "[data]"))
    wanted = {
        name_of(entry["metadata"]["name"]) for entry in json.loads(report.read_text())["install"]
    }
    assert "scikit-learn" in wanted and not wanted & set(KEPT)


def test_every_notebook_asks_for_this_version():
    about = project()
    for chapter in chapters():
        (first,) = json.loads(chapter.golden.read_text("utf8"))["cells"][:1]
        assert f"git+{about.repository}@v{about.version}" in "".join(first["source"])


def test_the_interpreter_of_these_tests_is_the_pinned_one():
    pins = dict(
        line.split("==") for line in (ROOT / "requirements.txt").read_text().split() if "==" in line
    )
    table = {name_of(name): version for name, version in pins.items()}
    installed = {
        name_of(d.metadata["Name"]): d.version.partition("+")[0] for d in metadata.distributions()
    }
    wrong = {n: (v, installed.get(n)) for n, v in table.items() if installed.get(n) != v}
    assert not wrong, f"{sys.prefix} differs from requirements.txt: {wrong}; run: make setup"
