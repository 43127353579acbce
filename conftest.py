"""nbval: compare what a notebook keeps, by the rules of `tools/replay.py`, and never skip a cell.

Only runs with `--nbval` are touched, and their kernels inherit what those of the runner do. Three
things differ from plain nbval. Text is compared with a tolerance for floats (argued in
`tools/replay.py`) instead of character by character. A cell without an execution count fails: nbval
would run it and compare nothing. And cells run with history, as in Jupyter, so that a final
semicolon hides a value.
"""

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    if not config.option.nbval:
        return
    from nbval import kernel, plugin

    from execute import ENVIRONMENT
    from replay import difference

    os.environ.update(ENVIRONMENT)

    def compare_outputs(self, test, ref, skip_compare=None):
        found = difference(test, ref)
        self.comparison_traceback = [found or ""]
        return found is None

    def execute_cell_input(self, cell_input, allow_stdin=None):
        return self.kc.execute(
            cell_input, store_history=True, allow_stdin=allow_stdin, stop_on_error=False
        )

    run = plugin.IPyNbCell.runtest

    def runtest(self):
        if self.cell.execution_count is None:
            self.raise_cell_error("The stored cell was never run, so nothing would be compared")
        run(self)

    plugin.IPyNbCell.compare_outputs = compare_outputs
    plugin.IPyNbCell.runtest = runtest
    kernel.RunningKernel.execute_cell_input = execute_cell_input
