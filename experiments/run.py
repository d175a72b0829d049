"""Run the experiments of a table; finished ones are read from experiments/results, killed ones continue.

TABLES: headline-x8, headline-x16, decoder, inversion, encoder, pairs, start, skip, skip-x16, remedies, recipe,
diffusion, diffusion-x16, diffusion-ablation, dictionary, references, classes; all: all of these. quality and category
need banks that python -m experiments.train_banks trains. python -m experiments.report writes the page.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

import torch
from rich.console import Console

from experiments import domains, regions, weights
from experiments.experiment import Experiment
from experiments.relatives import dictionary
from experiments.systems import bank_file, discriminator_bank
from experiments.tables import NEED_BANKS, TABLES
from experiments.weights import sha256
from glean_ext import cli
from glean_ext.utils.files import atomic_path, write_json

console = Console(soft_wrap=True, highlight=False)


def finished(experiment: Experiment) -> bool:
    """Whether there is a result of this very configuration, with the banks and the dictionary of today."""
    if not experiment.result_file.exists():
        return False
    result = json.loads(experiment.result_file.read_text())
    current = result.get("weights", {})
    files = {"discriminator": discriminator_bank(experiment).file}
    if bank := bank_file(experiment):
        files["bank"] = bank
    if dictionary.FILE.exists():  # it is made on each machine
        files["dictionary"] = str(dictionary.FILE)
    changed = [name for name, file in files.items() if name in current and current[name] != sha256(file)]
    return result["config"] == experiment.config() and not changed


def run(experiment: Experiment, threads: int = 1) -> dict:
    """Run one experiment and write its result file."""
    from experiments import inversion_run, restorer_run

    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    domain = domains.load(experiment.domain)
    runner = {"bicubic": restorer_run.bicubic, "pulse": inversion_run.pulse, "pulse-z": inversion_run.pulse}
    outcome = runner.get(experiment.system, restorer_run.trained)(experiment, domain, device, console.print)
    images, others = outcome.pop("images"), outcome.pop("other_images", {})
    if experiment.domain == regions.DOMAIN:
        outcome["regions"] = regions.measured(images)
    for name, restored in {"outputs": images, **{f"outputs_{which}": x for which, x in others.items()}}.items():
        with atomic_path(experiment.work_dir / f"{name}.pt") as partial:
            torch.save(restored, partial)
    result = {"config": experiment.config(), **outcome, **circumstances(device, threads)}
    write_json(result, experiment.result_file)
    console.print(f"{experiment.name}: {result['metrics']}")
    return result


def circumstances(device: torch.device, threads: int) -> dict:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    name = torch.cuda.get_device_name() if device.type == "cuda" else cpu_name()
    return {
        "machine": {
            "device": name,
            "threads": threads,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "commit": commit.stdout.strip(),
    }


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def run_all(experiments: Iterable[Experiment], jobs: int, threads: int) -> None:
    """Run what is not finished, each experiment in a process of its own, so that its peak memory is its own."""
    from experiments.measure import judge

    open_ones = [experiment for experiment in experiments if not finished(experiment)]
    console.print(f"{len(open_ones)} experiments to run")
    if not open_ones:
        return
    torch.set_num_threads(threads)
    for name in {experiment.domain for experiment in open_ones}:
        judge(name).prepare()  # what is made or fetched once
    weights.vgg16()
    method = "spawn" if torch.cuda.is_available() else "fork"  # a fork inherits what was loaded, but not a GPU
    with multiprocessing.get_context(method).Pool(jobs, maxtasksperchild=1) as pool:
        pool.starmap(run, [(experiment, threads) for experiment in open_ones], chunksize=1)
        pool.close()
        pool.join()  # leaving the pool would end its processes by a signal


def main() -> None:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", choices=[*TABLES, "all"], metavar="TABLE")
    parser.add_argument("--jobs", type=int, default=1, help="experiments at the same time (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of each (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", help="only these seeds")
    args = parser.parse_args()
    names = [name for name in TABLES if name not in NEED_BANKS] if "all" in args.tables else args.tables
    chosen = dict.fromkeys(experiment for name in names for experiment in TABLES[name])
    run_all([e for e in chosen if not args.seeds or e.seed in args.seeds], args.jobs, args.threads)


if __name__ == "__main__":
    cli.run(main)
