"""What has to hold for the outputs of a plan before work starts: nothing that exists is lost by it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from glean_ext.batch.output_plan import Job, Plan
from glean_ext.errors import InputError
from glean_ext.utils.messages import summarize_names

FACE = re.compile(r"(.+)_face\d{2,}(_restored)?\.png", re.IGNORECASE)  # as Job.face_path names faces


def without_existing(plan: Plan, overwrite: bool, skip: bool) -> tuple[list[Job], int]:
    """The jobs that remain, and how many are skipped because their output exists.

    Raises:
        InputError: Outputs exist, and it was not said what to do with them.
    """
    existing = [job for job in plan.jobs if any(plan.exists(path) for path in job.outputs)]
    written = [path for job in plan.jobs for path in job.outputs] if plan.existing is None else []
    if folder := next((path for path in written if path.is_dir()), None):
        raise InputError(f"{folder} is a folder, but a file has to be written there. Give another output.")
    if overwrite or not existing:
        return plan.jobs, 0
    if skip:
        remaining = [job for job in plan.jobs if not plan.exists(job.target)]
        return remaining, len(plan.jobs) - len(remaining)
    if plan.alone:
        raise InputError(f"{existing[0].target} exists.", "overwrite", "Give {overwrite}, or another output.")
    raise InputError(
        f"{len(existing)} of {len(plan.jobs)} outputs exist in {plan.folder} "
        f"({summarize_names([job.target.name for job in existing])}).",
        parameter=("overwrite", "skip_existing"),
        hint="Give {overwrite} to replace them, or {skip_existing} to restore the others only.",
    )


def require_own_faces(plan: Plan, jobs: Sequence[Job], faces: Path, root: Path, keep: bool) -> None:
    """Faces written into the folder ``faces`` replace no input and no output, and no faces of before where they count.

    Args:
        jobs: Those of ``plan`` that are done.
        root: The folder of the outputs.
        keep: Faces of before do not count.

    Raises:
        InputError: They would.
    """
    stems = {os.path.realpath(job.face_path(faces, root, "00")).lower().removesuffix("_face00.png") for job in jobs}

    def would_be_written(path: Path) -> bool:
        match = FACE.fullmatch(os.path.realpath(path).lower())
        return match is not None and match[1] in stems

    for job in plan.jobs:
        for path, what in (job.source, "an input"), *((output, "another output") for output in job.outputs):
            if would_be_written(path):
                raise InputError(
                    f"{{save_faces={faces}}}: {path} is {what} and would be overwritten. Give another folder.",
                    parameter="save_faces",
                )
    folders = {job.face_path(faces, root, "00").parent for job in jobs}
    if keep:
        return
    existing = sorted(
        path for folder in folders if folder.is_dir() for path in folder.iterdir() if would_be_written(path)
    )
    if existing:
        names = summarize_names([path.name for path in existing])
        raise InputError(
            f"faces exist in {faces} ({names}).", ("save_faces", "overwrite"), "Give {overwrite}, or another folder."
        )


def require_writable(folder: Path) -> None:
    """Before work starts.

    Raises:
        InputError: Nothing can be written in ``folder``, or it cannot be made.
    """
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise InputError(f"{folder} cannot be written to ({place} is a file). Choose another output.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"{folder} cannot be written to (no rights in {place}). Choose another output.")
