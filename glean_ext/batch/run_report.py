"""What became of a run of files."""

from __future__ import annotations

from dataclasses import dataclass

from glean_ext.batch.output_plan import Job
from glean_ext.utils.messages import summarize_names
from glean_ext.utils.outcome import Report


@dataclass
class RunReport(Report[Job]):
    """What became of a run; its ``seconds`` are without loading the networks.

    Attributes:
        skipped: Files whose outputs existed.
        faces: That were found and restored in images; None: none were searched for.
        network_seconds: Of all seconds, those in the network, of several workers on average.
        images_per_second: None where there were no images.
        workers: That restored the files; None: this process did.
    """

    skipped: int = 0
    faces: int | None = None
    network_seconds: float = 0.0
    images_per_second: float | None = None
    workers: int | None = None

    def until_now(self) -> str:
        """A sentence for one whose run ended early."""
        failed = [job.source.name for job in self.failures]
        others = f", and {len(failed)} had failed ({summarize_names(failed)})" if failed else ""
        return f"{self.done} files were written before{others}."
