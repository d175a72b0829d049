"""Two nodes of Ray on this machine."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.restoring import restore, results, start_restoring, wait_for_results, write_images

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
    """2,000 images: the driver is killed after some, a node later in the second run, and all are those of one process."""
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
    assert "was lost with worker" in stdout and "restored by 2 workers" in stdout and "skipped, which existed" in stdout
    assert stdout.count("failed: ") == 1

    Path(source, "00/damaged.png").unlink()
    assert restore(source, tmp_path / "alone")[0] == 0
    found, expected = results(out), results(tmp_path / "alone")
    assert len(expected) == 2000 and found == expected
