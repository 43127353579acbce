"""`make test`: every suite, each to its end; then what passed, failed (and why) and was skipped."""

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from chapters import ROOT

PYTEST = [sys.executable, "-m", "pytest", "-q", "-rfEs"]
NOTEBOOKS = [sys.executable, "tools/notebooks.py"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
COUNTS = re.compile(r"(\d+) (passed|failed|skipped|errors?|xfailed|xpassed)\b")


@dataclass
class Suite:
    """A command, what it is about, and what came of it."""

    about: str
    command: list[str]
    code: int = 0
    seconds: float = 0.0
    counts: dict[str, int] | None = None
    skipped: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def suites(root: Path = ROOT) -> list[Suite]:
    goldens = sorted(str(file.relative_to(root)) for file in (root / "book").glob("*.ipynb"))
    unit = ["tests", "-m", "not browser and not bare", "-n", "2", "--dist", "loadfile"]
    replay = ["--nbval", "--nbval-current-env", "-n", "2", "--dist", "loadfile", *goldens]
    return [
        Suite("unit tests, coverage of equations", [*PYTEST, *unit]),
        Suite("notebooks in step with their sources", [*NOTEBOOKS, "check"]),
        Suite("every notebook replayed and compared", [*PYTEST, *replay]),
        Suite("installed into environments of their own", [*PYTEST, "tests", "-m", "bare"]),
        Suite("the site in a browser", [*PYTEST, "tests", "-m", "browser", "-n", "2"]),
    ]


def run(suite: Suite, root: Path = ROOT) -> None:
    """Run a suite, show what it prints, and note its counts and what it skipped."""
    print(f"\n=== {suite.about}\n", flush=True)
    start, lines = time.monotonic(), []
    wide = os.environ | {"COLUMNS": "200"}  # pytest would cut its reasons to the terminal's width
    with subprocess.Popen(
        suite.command,
        cwd=root,
        env=wide,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip("\n"))
    suite.code, suite.seconds = process.returncode, time.monotonic() - start
    closing = next((line for line in reversed(lines) if COUNTS.search(line)), "")
    suite.counts = {what.rstrip("s"): int(n) for n, what in COUNTS.findall(closing)}
    suite.skipped = tuple(line for line in lines if line.startswith("SKIPPED"))
    suite.notes = tuple(line for line in lines if line.startswith("chapters take"))
    if suite.code:
        suite.failed = tuple(reasons(lines)) or tuple(lines[-20:])


def reasons(lines: list[str]) -> list[str]:
    """What a failed suite says of its failures: pytest's summary, and stale notebooks with why."""
    found, within = [], False
    for line in lines:
        starts = line.startswith(("FAILED", "ERROR", "STALE"))
        within = starts or (within and line.startswith(" "))
        if within:
            found.append(line)
    return found


def report(done: list[Suite], browser: bool) -> bool:
    """Print the table; whether all went well. What was skipped stands last, where it is seen."""
    print("\n=== summary\n")
    for suite in done:
        counts = ", ".join(f"{n} {what}" for what, n in (suite.counts or {}).items())
        verdict = "ok    " if suite.code == 0 else "FAILED"
        print(f"{verdict} {suite.seconds:5.0f} s  {suite.about}{': ' + counts if counts else ''}")
    skipped = [line for suite in done for line in suite.skipped]
    for line in (line for suite in done for line in (*suite.notes, *suite.failed)):
        print(line)
    if not browser:
        names = " or ".join(BROWSERS)
        skipped.insert(0, f"SKIPPED everything in a browser: no {names}; install chromium")
    for line in skipped:
        print(line)
    sums = {what: 0 for what in ("passed", "failed", "skipped")}
    for suite in done:
        for what, n in (suite.counts or {}).items():
            key = what if what in sums else "failed" if what == "error" else "passed"
            sums[key] += n
    good = all(suite.code == 0 for suite in done)
    sums["failed"] = max(sums["failed"], sum(suite.code != 0 for suite in done))
    print(", ".join(f"{n} {what}" for what, n in sums.items()), flush=True)
    return good


def main() -> int:
    browser = any(shutil.which(name) for name in BROWSERS)
    chosen = [s for s in suites() if browser or "browser" not in s.about]
    for suite in chosen:
        run(suite)
    return 0 if report(chosen, browser) else 1


if __name__ == "__main__":
    sys.exit(main())
