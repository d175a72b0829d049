"""Starts a process for each GPU by torchrun, and ends as the first of them that fails: one line, its exit code.

torchrun itself would end with a traceback of its own and always with 1. The shell scripts call it:
``python -m glean_ext.cli.launch --nproc_per_node=2 tools/train.py CONFIG --launcher pytorch``.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from glean_ext import cli


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run torchrun with ``argv``; exits with 0, the code of the process that failed first, or 130 for Ctrl-C."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # It logs what becomes of the files in which processes leave their line.
    logging.getLogger("torch.distributed.elastic.multiprocessing.errors").setLevel(logging.CRITICAL)
    os.environ[cli.LAUNCHED] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun sets it, too, and says so at length
    try:
        run.main(argv)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode == 2:
            cli.fail(failure.message)
        how = f"was killed by {failure.signal_name()}" if failure.exitcode < 0 else "failed, see above"
        trains = any(argument.endswith("train.py") for argument in argv or sys.argv)
        mend = " --resume goes on from the newest checkpoint." if trains else ""
        print(f"error: process {rank} {how}.{mend}", file=sys.stderr)
        raise SystemExit(max(failure.exitcode, 1)) from None
    except SignalException:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    raise SystemExit(0)


if __name__ == "__main__":
    main()
