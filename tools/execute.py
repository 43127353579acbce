"""Execute chapters in processes of their own, and keep each result until its key changes.

`_build/executed/NN-name.ipynb` holds the result with its key. It is written in one step once the
whole chapter has run, so an interrupted or failing run leaves what was there before.
"""

import os
import re
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryFile

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from chapters import ROOT, BookError, Chapter, code_cells, key
from replay import ADDRESS, kept

TIMEOUT = 600  # seconds for one cell: only a cell that hangs reaches it
LIMITS = {13: 90, 16: 90, 19: 90}  # seconds of one processor that a chapter may take; 60 elsewhere
# What kernels inherit, here and when nbval replays a chapter: one thread, since another chapter
# runs beside it; sets that print in one order; no progress bars, which write to stderr; the CPU,
# whose text is compared, unless ONEPATH_DEVICE says otherwise.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "TQDM_DISABLE": "1",
    "ONEPATH_DEVICE": os.environ.get("ONEPATH_DEVICE", "cpu"),
}
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class ChapterFailed(BookError):
    """A chapter raised, wrote to stderr, or printed what no second run can print again."""


@dataclass(frozen=True)
class Run:
    """An executed chapter: the notebook with all outputs, and the key before it ran.

    `seconds` are of the clock, `work` of the processor: the second does not depend on what else
    the machine had to do.
    """

    chapter: Chapter
    notebook: nbformat.NotebookNode
    seconds: float
    work: float
    key: str


def store(root: Path = ROOT) -> Path:
    return root / "_build" / "executed"


def stored(chapter: Chapter, root: Path = ROOT) -> Run | None:
    """The kept result of a chapter, if it was made by the code, data and pins of now.

    Its outputs stand in the prose of now, which no output depends on and no key holds.
    """
    file = store(root) / f"{chapter.name}.ipynb"
    if not file.exists():
        return None
    notebook = nbformat.read(file, 4)
    mark = notebook.metadata.pop("onepath", {})
    if mark.get("key") != key(chapter, root):
        return None
    current = nbformat.from_dict(chapter.notebook)
    given = {"language_info", "widgets"} & set(notebook.metadata)  # by the kernel
    current.metadata |= {name: notebook.metadata[name] for name in given}
    for cell, ran in zip(code_cells(current), code_cells(notebook), strict=True):
        cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
    return Run(chapter, current, mark["seconds"], mark["work"], mark["key"])


def execute_all(chapters: list[Chapter], root: Path = ROOT, processes: int = 2) -> list[Run]:
    """All chapters, executed where no kept result fits. Raises ChapterFailed after all have run."""
    runs = {c.name: run for c in chapters if (run := stored(c, root))}
    waiting = sorted(
        (c for c in chapters if c.name not in runs), key=_expected_seconds, reverse=True
    )
    say(f"{len(chapters)} chapters: {len(runs)} unchanged, {len(waiting)} to execute")
    failures = []
    os.environ.update(ENVIRONMENT)
    with ProcessPoolExecutor(min(processes, len(waiting)) or 1, get_context("spawn")) as pool:
        started = {pool.submit(execute, chapter, root): chapter for chapter in waiting}
        for done, future in enumerate(as_completed(started), 1):
            chapter = started[future]
            try:
                run = future.result()
            except ChapterFailed as failure:
                failures.append(str(failure))
                say(f"[{done}/{len(waiting)}] {chapter.name} FAILED")
                continue
            runs[chapter.name] = run
            limit = LIMITS.get(chapter.number, 60)
            over = f", OVER ITS LIMIT of {limit} s" if run.work > limit else ""
            took = f"{run.seconds:.1f} s, {run.work:.1f} s of the processor{over}"
            say(f"[{done}/{len(waiting)}] {chapter.name} {took}")
    if failures:
        raise ChapterFailed("\n\n".join(failures))
    ordered = [runs[c.name] for c in chapters]
    say(f"chapters take {sum(run.work for run in ordered):.0f} s of one processor in all")
    return ordered


def execute(chapter: Chapter, root: Path = ROOT) -> Run:
    """Run one chapter in a new kernel and keep the result."""
    say(f"{chapter.name} starts")
    before = key(chapter, root)  # a module edited while this runs must not pass for what was run
    notebook = nbformat.from_dict(chapter.notebook)
    kernelspec = dict(notebook.metadata.kernelspec)
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name=kernelspec["name"],
        record_timing=False,
        startup_timeout=120,
        resources={"metadata": {"path": str(chapter.path.parent)}},
    )
    start, busy = time.monotonic(), _work()
    with TemporaryFile("w+") as log:  # what the kernel itself says, not its cells
        try:
            client.execute(stderr=log)
        except (CellExecutionError, CellTimeoutError, DeadKernelError, RuntimeError) as error:
            log.seek(0)
            raise ChapterFailed(_report(chapter, notebook, error, log.read())) from None
    seconds, work = time.monotonic() - start, _work() - busy
    notebook.metadata["kernelspec"] = kernelspec  # the builder's cache looks for it as it was
    _refuse_unrepeatable(chapter, notebook)
    run = Run(chapter, notebook, seconds, work, before)
    keep(run, root)
    return run


def _work() -> float:
    """Seconds of the processor that kernels of this process have used, once they have ended."""
    used = os.times()
    return used.children_user + used.children_system


def keep(run: Run, root: Path) -> None:
    marked = nbformat.from_dict(run.notebook)
    times = {"seconds": round(run.seconds, 2), "work": round(run.work, 2)}
    marked.metadata["onepath"] = {"key": run.key} | times
    store(root).mkdir(parents=True, exist_ok=True)
    replace(store(root) / f"{run.chapter.name}.ipynb", nbformat.writes(marked))


def replace(file: Path, text: str) -> None:
    """Write a file in one step: whoever reads it sees the old text or the new, never a part."""
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        part.write_text(text, "utf8")
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _refuse_unrepeatable(chapter: Chapter, notebook: nbformat.NotebookNode) -> None:
    for number, cell in enumerate(code_cells(notebook), 1):
        for output in kept(cell.outputs):
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            if output["output_type"] == "stream" and output["name"] == "stderr":
                rule = "a chapter writes nothing to stderr; fix what is warned about"
            elif ADDRESS.search(text):
                rule = "an output must be the same in every run, this one holds a memory address"
            else:
                continue
            raise ChapterFailed(_place(chapter, number, cell.source) + f"{rule}:\n{text}")


def _report(chapter: Chapter, notebook: nbformat.NotebookNode, error: Exception, log: str) -> str:
    cells = code_cells(notebook)
    number = next((n for n, cell in enumerate(cells, 1) if _is_open(cell)), len(cells))
    raised = [o for o in cells[number - 1].outputs if o.output_type == "error"]
    reason = "\n".join(raised[0].traceback) if raised else f"{error}\n\n{log}"
    return _place(chapter, number, cells[number - 1].source) + ANSI.sub("", reason).strip()


def _is_open(cell: nbformat.NotebookNode) -> bool:
    """Whether a cell raised or never ran."""
    return cell.execution_count is None or any(o.output_type == "error" for o in cell.outputs)


def _place(chapter: Chapter, number: int, source: str) -> str:
    listing = "\n".join(f"    {line}" for line in source.splitlines())
    return f"{chapter.path.name}, code cell {number} failed:\n\n{listing}\n\n"


def _expected_seconds(chapter: Chapter) -> float:
    """Longest first keeps both processes busy; a chapter not seen before counts as long."""
    file = store() / f"{chapter.name}.ipynb"
    if not file.exists():
        return float("inf")
    return nbformat.read(file, 4).metadata.get("onepath", {}).get("seconds", float("inf"))


def say(line: str) -> None:
    print(line, flush=True)
