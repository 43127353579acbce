"""Plant wrong formulas in the package, one at a time, and count those that the unit tests catch.

A mutant is one change of an arithmetic operator, a sign, a function, a comparison or a numeric
constant inside a function of `src/onepath`. It is written into a temporary copy of the repository;
the checkout is never touched. The tests of its module run first, the whole unit suite if they let
it pass. Outputs of notebooks do not count as detection.

A mutant that no test could catch, because it computes the same thing or moves a tolerance within
its reason, is listed in `equivalent_mutants.toml` with that reason.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Queue

from tqdm import tqdm

from mutations import Mutant, draw

ROOT = Path(__file__).resolve().parents[1]
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.toml")
# pictures are looked at, not computed with
NOT_FORMULAS = {
    "__init__",
    "page",
    "plotting",
    "plotting_time",
    "plotting_plane",
    "plotting_learning",
    "plotting_sampling",
    "plotting_bridges",
    "plotting_prices",
}
UNIT = ["-m", "not browser and not bare"]
ALLOWED = 0.05  # share of survivors that are not equivalent


@dataclass(frozen=True)
class Verdict:
    mutant: Mutant
    caught_by: str | None  # "its own tests", "the suite", or None
    test: str = ""
    legs: tuple[str, ...] = ()
    seconds: float = 0.0


class Copy:
    """A copy of the repository in which one module at a time is changed."""

    stamp = 1_700_000_000  # a time of its own for every version, so that no stale bytecode is run

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warm: subprocess.Popen | None = None
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        for name in listed.stdout.splitlines():
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)

    def write(self, module: str, source: str) -> str:
        """Change a module; what stood there before."""
        path = self.folder / "src" / "onepath" / f"{module}.py"
        before = path.read_text()
        path.write_text(source)
        Copy.stamp += 10
        os.utime(path, (Copy.stamp, Copy.stamp))
        return before

    def users(self, module: str) -> list[str]:
        """The test files that import a module: the likeliest to notice, so they run first."""
        tests = sorted((self.folder / "tests").glob("test_*.py"))
        return [f"tests/{t.name}" for t in tests if f"onepath.{module} import" in t.read_text()]

    def pytest(self, arguments: list[str], limit: float) -> tuple[int, str]:
        """Exit code and output of a run in a fork of a process that has torch loaded already."""
        if self.warm is None:
            self.warm = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("warm.py"))],
                cwd=self.folder,
                env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(self.folder / "src")},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        output = self.folder.with_suffix(".txt")
        how = ["-q", "--tb=line", "-p", "no:cacheprovider", *arguments]
        self.warm.stdin.write(json.dumps([int(limit), str(output), how]) + "\n")
        self.warm.stdin.flush()
        code = int(self.warm.stdout.readline())
        return code, output.read_text()

    def close(self) -> None:
        if self.warm is not None:
            self.warm.stdin.close()
            self.warm.wait()


LEGS = {
    "law, in standard errors": r"standard errors is",
    "order, a slope": r"distance to the order is",
    "identity, largest error": r"largest error is",
    "bound, an inequality": r"left side / right side is",
    "shapes and types": r"TypeCheckError|beartype",
    "refusal of bad input": r"DID NOT RAISE|Regex pattern did not match",
    "plain comparison": r"assert|AssertionError|Failed",
}


def legs(output: str) -> tuple[str, ...]:
    """What kinds of check failed, by the line that pytest gives to each failure."""
    kinds = set()
    for line in re.findall(r"^(?:/|E  ).*$", output, re.M):
        matched = [leg for leg, pattern in LEGS.items() if re.search(pattern, line)]
        kinds.add(matched[0] if matched else "an exception")
    return tuple(sorted(kinds)) or ("an exception",)


def judge(mutant: Mutant, place: Copy, suite: list[str], whole: float, every_leg: bool) -> Verdict:
    """Run the tests of the module, then the suite, on one mutant.

    `whole` is how long all of them took on the sound package. A run that takes that long on its own
    module, or thrice as long on the suite, is taken to run forever.
    """
    begin, own = time.monotonic(), f"tests/test_{mutant.module}.py"
    stop = [] if every_leg else ["-x"]
    rounds = [("its own tests", whole, [*stop, own])] if (place.folder / own).exists() else []
    users = [test for test in place.users(mutant.module) if test != own]
    rounds.append(("the suite", 3 * whole, ["-x", *UNIT, f"--ignore={own}", *users, *suite]))
    original = place.write(mutant.module, mutant.source)
    verdict = Verdict(mutant, None)
    try:
        for name, limit, arguments in rounds:
            code, output = place.pytest(arguments, limit)
            if code < 0:
                verdict = Verdict(mutant, name, "(ran forever)", ("time",))
            elif code > 0:
                test = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.M)
                named = test.group(1) if test else "(could not start)"
                verdict = Verdict(mutant, name, named, legs(output))
            if code:
                break
    finally:
        place.write(mutant.module, original)
    return replace(verdict, seconds=time.monotonic() - begin)


def reasons() -> dict[str, str]:
    """Why a mutant is equivalent, by its name."""
    if not EQUIVALENT.exists():
        return {}
    rows = tomllib.loads(EQUIVALENT.read_text())["equivalent"]
    return {row["mutant"]: row["reason"] for row in rows}


def report(verdicts: list[Verdict], asked: argparse.Namespace, minutes: float) -> str:
    known = reasons()
    alive = [v for v in verdicts if v.caught_by is None]
    open_ones = [v for v in alive if v.mutant.name not in known]
    own = sum(v.caught_by == "its own tests" for v in verdicts)
    lines = [
        "# Mutants",
        "",
        "One wrong operator, sign, function, comparison or constant at a time, planted in the "
        "formulas of `src/onepath`; written by `make mutants`.",
        "",
        f"- seed {asked.seed}, {len(verdicts)} mutants in {minutes:.0f} min with "
        f"{asked.workers} workers; Python {platform.python_version()}, {platform.machine()}",
        f"- caught by the tests of their own module {own}, by the rest of the unit suite "
        f"{len(verdicts) - own - len(alive)}",
        f"- survived {len(alive)}, of which equivalent {len(alive) - len(open_ones)}: "
        f"**{len(open_ones)} survivors that count**",
        "",
    ]
    lines += table(verdicts, "module", lambda v: v.mutant.module)
    lines += table(verdicts, "kind", lambda v: v.mutant.kind)
    caught = Counter(leg for v in verdicts if v.caught_by for leg in v.legs)
    how = "checks that failed" if asked.every_leg else "first check that failed"
    lines += [f"| {how} | mutants |", "| --- | --- |"]
    lines += [f"| {leg} | {count} |" for leg, count in caught.most_common()]
    late = sorted(v.mutant.name for v in verdicts if v.legs == ("time",))
    if late:
        lines += ["", "Caught because the tests did not end in time: " + "; ".join(late) + "."]
    lines += ["", "## Survivors", "", "| where | change | reason |", "| --- | --- | --- |"]
    for v in sorted(alive, key=lambda v: v.mutant.name):
        m = v.mutant
        change = f"`{m.before}` → `{m.after}`".replace("|", "\\|")
        reason = known.get(m.name, "**none: a test is missing**")
        lines.append(f"| {m.module}.py:{m.line} `{m.function}` | {change} | {reason} |")
    return "\n".join(lines) + "\n"


def table(verdicts: list[Verdict], title: str, key) -> list[str]:
    rows = [f"| {title} | planted | own tests | suite | survived |", "| --- " * 5 + "|"]
    for name in sorted({key(v) for v in verdicts}):
        fates = Counter(v.caught_by for v in verdicts if key(v) == name)
        counts = (sum(fates.values()), fates["its own tests"], fates["the suite"], fates[None])
        rows.append(f"| {name} | " + " | ".join(map(str, counts)) + " |")
    return [*rows, ""]


def suite() -> list[str]:
    """The unit tests that import the package; those of the book's machinery compute nothing."""
    tests = sorted((ROOT / "tests").glob("test_*.py"))
    uses = re.compile(r"^\s*(from|import) onepath\b", re.M)
    return [f"tests/{test.name}" for test in tests if uses.search(test.read_text())]


def main() -> int:
    modules = [p.stem for p in sorted((ROOT / "src" / "onepath").glob("*.py"))]
    modules = [m for m in modules if m not in NOT_FORMULAS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modules", nargs="+", default=modules)
    parser.add_argument("--suite", nargs="+", default=suite(), help="what counts as unit suite")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--time", type=float, default=45.0, help="minutes; none starts later")
    parser.add_argument("--every-leg", action="store_true", help="run on after the first failure")
    parser.add_argument("--report", type=Path, default=ROOT / "benchmarks" / "mutants.md")
    asked = parser.parse_args()

    begin, verdicts = time.monotonic(), []
    paths = [ROOT / "src" / "onepath" / f"{module}.py" for module in asked.modules]
    chosen = draw(paths, asked.n, asked.seed)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies: Queue[Copy] = Queue()
        for i in range(asked.workers):
            copies.put(Copy(Path(folder) / str(i)))
        own = [f"tests/test_{m}.py" for m in asked.modules]
        place = copies.get()
        own = [test for test in own if (place.folder / test).exists()]
        print("the tests must pass before anything is planted …", flush=True)
        tests = [*dict.fromkeys([*own, *asked.suite])]
        code, output = place.pytest([*UNIT, *tests], 3600)
        whole = max(60.0, time.monotonic() - begin)
        copies.put(place)
        if code:
            print(output[-3000:], file=sys.stderr)
            return 2

        def work(mutant: Mutant) -> Verdict | None:
            if time.monotonic() - begin > 60 * asked.time:
                return None
            place = copies.get()
            try:
                return judge(mutant, place, asked.suite, whole, asked.every_leg)
            finally:
                copies.put(place)

        with ThreadPoolExecutor(asked.workers) as pool:
            for verdict in tqdm(pool.map(work, chosen), total=len(chosen), desc="mutants"):
                if verdict is None:
                    continue
                verdicts.append(verdict)
                if verdict.caught_by is None:
                    m = verdict.mutant
                    tqdm.write(f"survived: src/onepath/{m.module}.py:{m.line}  {m.name}")

        while not copies.empty():
            copies.get().close()

    text = report(verdicts, asked, (time.monotonic() - begin) / 60)
    print(text)
    asked.report.write_text(text)
    known = reasons()
    count = sum(v.caught_by is None and v.mutant.name not in known for v in verdicts)
    if len(verdicts) < len(chosen):
        print(f"the time was up after {len(verdicts)} of {len(chosen)} mutants.", file=sys.stderr)
    return int(count > ALLOWED * max(len(verdicts), 1))


if __name__ == "__main__":
    sys.exit(main())
