"""Starts a process for each GPU by torchrun, and ends like the first one that fails: with one line and its exit code.

torchrun itself would end with a traceback of its own and always with 1. The shell scripts call it:
``python -m glean_ext.cli.launch --nproc_per_node=2 tools/train.py CONFIG --launcher pytorch``.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from glean_ext import cli


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run torchrun with ``argv``; exits with 0, the code of the first process that failed, or 128 + a signal."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # This logger reports on the files in which processes leave their line.
    logging.getLogger("torch.distributed.elastic.multiprocessing.errors").setLevel(logging.CRITICAL)
    os.environ[cli.LAUNCHED] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun sets it, too, with a long message
    try:
        run.main(argv)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode == 2:
            cli.fail(failure.message)
        how = f"was killed by {failure.signal_name()}" if failure.exitcode < 0 else "failed, see above"
        trains = any(argument.endswith("train.py") for argument in argv or sys.argv)
        hint = " --resume continues from the newest checkpoint." if trains else ""
        cli.write_error(f"error: process {rank} {how}.{hint}")
        raise SystemExit(max(failure.exitcode, 1)) from None
    except SignalException as error:
        interrupted = error.sigval == signal.SIGINT
        cli.write_error("interrupted" if interrupted else "terminated")
        raise SystemExit(128 + error.sigval) from None
    raise SystemExit(0)


if __name__ == "__main__":
    main()
