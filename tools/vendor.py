"""The scripts and fonts that the site serves, copied from npm packages and committed.

    python tools/vendor.py           fetch the pinned packages (needs npm), write the files
    python tools/vendor.py --check   are the committed files those whose checksums are written?

They are committed, not fetched by the build: a fresh machine needs Python and nothing else, a build
years from now serves the same bytes, and a review sees when they change. `npm` verifies each
package's own checksum.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from importlib.metadata import files
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SITE, TESTS = ROOT / "book/_static/vendor", ROOT / "tests/browser/vendor"
SUMS = SITE / "SHA256SUMS.json"


@dataclass(frozen=True)
class Package:
    """One package: where its files go, which of them, under which licence, and what for."""

    name: str
    version: str
    licence: str
    target: Path
    base: str
    globs: tuple[str, ...]
    purpose: str
    python: str = ""  # the Python package of the same project, where npm's holds no licence text


PACKAGES = (
    Package(
        "mathjax",
        "3.2.2",
        "Apache-2.0",
        SITE / "mathjax",
        "es5",
        ("tex-chtml.js", "input/tex/extensions/*.js", "output/chtml/fonts/woff-v2/*.woff"),
        "formulas",
    ),
    Package(
        "@jupyter-widgets/html-manager",
        "1.0.15",
        "BSD-3-Clause",
        SITE / "widgets",
        "dist",
        ("embed.js", "embed.js.LICENSE.txt", "*.woff2"),
        "sliders without a kernel, on pages that have some",
        python="ipywidgets",
    ),
    Package(
        "@fontsource-variable/source-serif-4",
        "5.3.1",
        "OFL-1.1",
        SITE / "source-serif",
        "files",
        ("*-latin-wght-*.woff2", "*-greek-wght-*.woff2"),
        "the text",
    ),
    Package(
        "@fontsource-variable/source-sans-3",
        "5.3.0",
        "OFL-1.1",
        SITE / "source-sans",
        "files",
        ("*-latin-wght-normal.woff2", "*-greek-wght-normal.woff2"),
        "headings, labels and tables",
    ),
    Package(
        "axe-core",
        "4.14.1",
        "MPL-2.0",
        TESTS / "axe-core",
        ".",
        ("axe.min.js",),
        "accessibility tests only; not part of the site",
    ),
)


def fetch(package: Package) -> None:
    """Replace the committed copy of one package."""
    print(f"{package.name} {package.version}")
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
        tarball = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        with tarfile.open(Path(folder) / tarball.stdout.strip()) as archive:
            archive.extractall(folder, filter="data")
        base = Path(folder) / "package" / package.base
        if missing := [glob for glob in package.globs if not list(base.glob(glob))]:
            raise SystemExit(f"{package.name} {package.version} has no file {', '.join(missing)}.")
        shutil.rmtree(package.target, ignore_errors=True)
        for file in (file for glob in package.globs for file in sorted(base.glob(glob))):
            copy = package.target / file.relative_to(base)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        (package.target / "LICENSE").write_text(licence(package, Path(folder) / "package"), "utf8")


def licence(package: Package, unpacked: Path) -> str:
    """The licence text: of the npm package, or of the project's Python package if it has none."""
    for file in sorted(unpacked.glob("LICENSE")):
        return file.read_text("utf8")
    for file in files(package.python) or ():
        if file.name == "LICENSE":
            return file.read_text("utf8")
    raise SystemExit(f"{package.name} comes without a licence text; name where to find it.")


def sums() -> dict[str, str]:
    """The checksum of every vendored file, by its path from the root."""
    found = sorted(f for p in PACKAGES for f in p.target.rglob("*") if f.is_file())
    return {
        f.relative_to(ROOT).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in found
    }


def table() -> str:
    """The licences, as Markdown."""
    head = (
        "# Scripts and fonts of others\n\nWritten by `tools/vendor.py`; the licence texts lie "
        "beside the files.\n\n| package | version | licence | serves |\n| --- | --- | --- | --- |\n"
    )
    rows = (f"| {p.name} | {p.version} | {p.licence} | {p.purpose} |" for p in PACKAGES)
    return head + "\n".join(rows) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the written checksums")
    if parser.parse_args().check:
        written, found = json.loads(SUMS.read_text("utf8")), sums()
        wrong = sorted(n for n in written.keys() | found.keys() if written.get(n) != found.get(n))
        for name in wrong:
            print(f"differs from {SUMS.relative_to(ROOT)}: {name}")
        return 1 if wrong else 0
    for package in PACKAGES:
        fetch(package)
    SUMS.write_text(json.dumps(sums(), indent=1) + "\n", "utf8")
    (SITE / "LICENCES.md").write_text(table(), "utf8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
