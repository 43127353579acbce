"""Runs pytest again and again without importing its libraries each time: `mutants.py` starts it.

Each line of the input is a JSON list: the seconds allowed, the file for the output, the arguments
of pytest. The answer is a line with the exit code; that of a run that took too long is negative.
The package under test is not imported here, so that every fork reads it afresh.
"""

import contextlib
import json
import os
import signal
import sys

import beartype  # noqa: F401  # imported to be there already, as are the next ones
import hypothesis  # noqa: F401
import jaxtyping  # noqa: F401
import pytest
import scipy.integrate  # noqa: F401
import scipy.stats  # noqa: F401
import torch
import torchdiffeq  # noqa: F401


def main() -> None:
    torch.set_num_threads(1)
    torch.func.grad(torch.func.grad(torch.sin))(torch.zeros(()))  # loads what it loads lazily
    for line in sys.stdin:
        seconds, output, arguments = json.loads(line)
        child = os.fork()
        if child == 0:
            os.setsid()
            signal.alarm(seconds)
            target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(target, stream)
            sys.stdin.close()
            code = pytest.main(arguments)
            sys.stdout.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        with contextlib.suppress(ProcessLookupError):  # what a run that was cut off left behind
            os.killpg(child, signal.SIGKILL)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":  # tests that spawn processes import this file again
    main()
