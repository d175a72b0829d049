"""Two nodes of Ray on this machine."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.preparation import picture, save
from support.preparation import start as start_preparing
from support.restoring import ROOT, restore, results, serving, start_restoring, wait_for_results, write_images
from support.tools import only_error, run_main
from support.training import free_port

from glean_ext.cli import prepare_data
from glean_ext.cli import restore as command

cluster_utils = pytest.importorskip("ray.cluster_utils", reason="needs the extra cluster")

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@pytest.fixture
def cluster() -> Iterator:
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        yield cluster
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_a_lost_node_and_a_killed_driver_lose_nothing(cluster, tmp_path):
    """2,000 images: the driver is killed after some, a node in the second run; the results are those of one process."""
    source, out = tmp_path / "in", tmp_path / "out"
    write_images(source, 2000)
    Path(source, "00/damaged.png").write_bytes(b"no image")
    node = cluster.add_node(**NODE)
    arguments = "--cluster", cluster.address, "--skip-existing"

    killed = start_restoring(source, out, *arguments)
    wait_for_results(out, 100, killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    before = len(results(out))
    assert before < 1500

    second = start_restoring(source, out, *arguments)
    wait_for_results(out, before + 300, second)
    cluster.remove_node(node, allow_graceful=False)
    stdout, stderr = second.communicate()
    assert second.returncode == 2 and stderr.count("\n") == 1, stderr
    assert "1 of " in stderr and "damaged.png" in stderr
    for part in "was lost with worker", "restored by 2 workers", "skipped, which existed":
        assert part in stdout, stdout
    assert stdout.count("failed: ") == 1

    Path(source, "00/damaged.png").unlink()
    assert restore(source, tmp_path / "alone")[0] == 0
    found, expected = results(out), results(tmp_path / "alone")
    assert len(expected) == 2000 and found == expected


@pytest.mark.slow
def test_data_prepared_on_a_cluster_is_that_of_one_process(cluster, tmp_path):
    """The driver is killed after some images, a node in the second run; a file is damaged, another is there twice."""
    source, out = tmp_path / "raw", tmp_path / "out"
    for seed in range(400):
        save(picture(seed, 256), source / f"{seed % 7}/{seed}.bmp")
    save(picture(5, 256), source / "copy.bmp")
    (source / "damaged.png").write_bytes(b"no image")
    node = cluster.add_node(**NODE)
    options = "--size", "128", "--lr-scale", "8"
    arguments = source, out, *options, "--cluster", cluster.address

    killed = start_preparing(*arguments)
    wait_for_results(out / ".staging/GT", 20, killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    made = (out / "records.jsonl").read_text().count("\n") - 1
    assert made < 400

    second = start_preparing(*arguments)
    wait_for_results(out / ".staging/GT", made + 40, second)
    cluster.remove_node(node, allow_graceful=False)
    stdout, stderr = second.communicate()
    assert second.returncode == 0, stderr
    assert "was lost with worker" in stderr and "rejected: 1 unreadable" in stdout and "1 equal" in stdout, stdout

    alone = start_preparing(source, tmp_path / "alone", *options, "--workers", "1")
    assert alone.communicate() and alone.returncode == 0
    one, other = (results(folder) for folder in (out, tmp_path / "alone"))
    assert one.keys() == other.keys()
    assert {name for name in one if one[name] != other[name]} <= {"report.json"}
    reports = [json.loads(folder["report.json"]) | {"seconds": 0} for folder in (one, other)]
    assert reports[0] == reports[1]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "--cluster 127.0.0.1:1: nothing answers there (Connection refused). Give HOST:PORT as"),
        ("nonsense", "--cluster nonsense: nothing answers there (this is no address). Give HOST:PORT as"),
        ("http://127.0.0.1:1", "--cluster http://127.0.0.1:1: nothing answers there (this is no address)."),
        ("auto", "--cluster auto: no Ray cluster takes this connection (Could not find any running Ray instance"),
    ],
)
def test_no_cluster(tmp_path, capsys, monkeypatch, address, message):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    write_images(tmp_path / "in", 1)
    given = ["--model", "demo_glean_x8", tmp_path / "in", "-o", tmp_path / "out", "--cluster", address]
    assert only_error(*run_main(command.main, capsys, *given)).startswith(message)
    given = [tmp_path / "in", tmp_path / "out", "--size", "8", "--cluster", address]
    assert only_error(*run_main(prepare_data.main, capsys, *given)).startswith(message)


@pytest.mark.slow
def test_tokens_and_the_client_server(tmp_path):
    write_images(tmp_path / "in", 1)
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef"}
    port, client = free_port(), free_port()
    options = f"start --head --block --port={port} --ray-client-server-port={client} --num-cpus=1"
    options += " --include-dashboard=false --disable-usage-stats"
    start = [sys.executable, "-m", "ray.scripts.scripts", *options.split(), f"--object-store-memory={80 * 2**20}"]
    with serving(start, "Ray runtime started", tmp_path / "log", PYTHONPATH=str(ROOT), **token):
        for address in f"127.0.0.1:{port}", f"ray://127.0.0.1:{client}":
            arguments = tmp_path / "in", tmp_path / address[:3], "--cluster", address
            code, stdout, stderr = restore(*arguments, **token | {"RAY_AUTH_TOKEN": "f" * 32})
            assert (code, stdout) == (2, "") and stderr.count("\n") == 1, stderr
            assert "no Ray cluster takes this connection" in stderr and "RAY_AUTH_TOKEN" in stderr
            code, _, stderr = restore(*arguments, **token)
            assert code == 0, stderr
        code, _, stderr = restore(tmp_path / "in", tmp_path / "x", "--cluster", f"ray://127.0.0.1:{port}", **token)
        assert code == 2 and "no Ray cluster takes this connection" in stderr, "this is the cluster's own port"
