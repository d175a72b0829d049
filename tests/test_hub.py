"""Networks on the Hugging Face Hub: through a folder, and through a server that answers as the hub does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from glean_ext.errors import InputError

pytest.importorskip("huggingface_hub")
from glean_ext.hub import HubGLEAN, HubLightGLEAN

SMALL = {"num_rrdbs": 1, "rrdb_channels": 4, "style_channels": 16, "num_mlps": 2, "channel_multiplier": 0.125}


@pytest.fixture(params=[HubGLEAN, HubLightGLEAN])
def network(request):
    torch.manual_seed(0)
    bank = {"type": "Pretrained", "checkpoint": "/home/me/bank.pth"}
    return request.param(8, 64, max_channels=24, init_cfg=bank, **SMALL).eval()


def test_a_folder_gives_the_same_network(network, tmp_path):
    network.save_pretrained(tmp_path)
    again = type(network).from_pretrained(tmp_path).eval()
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(again(image), network(image))


def test_what_a_folder_holds(network, tmp_path):
    network.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["in_size"], config["out_size"], config["max_channels"]) == (8, 64, 24)
    assert "init_cfg" not in config  # paths of this machine stay here
    card = (tmp_path / "README.md").read_text()
    assert "library_name: glean-ext" in card
    assert f"import {type(network).__name__}" in card


def test_weights_that_do_not_fit(network, tmp_path):
    network.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "rrdb_channels": 5}))
    with pytest.raises(InputError, match="does not fit"):
        type(network).from_pretrained(tmp_path)


def test_a_folder_without_the_files(network, tmp_path):
    with pytest.raises(InputError, match=r"has no config\.json"):
        type(network).from_pretrained(tmp_path)
    network.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors: there is no such file"):
        type(network).from_pretrained(tmp_path)


def test_a_repository(tmp_path):
    """As a user has it: another process, in which the hub is at this address."""
    torch.manual_seed(0)
    HubLightGLEAN(8, 64, max_channels=24, **SMALL).save_pretrained(tmp_path / "repository")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _hub(tmp_path / "repository"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = (
        "from glean_ext.errors import InputError\n"
        "from glean_ext.hub import HubLightGLEAN\n"
        "print(sum(p.numel() for p in HubLightGLEAN.from_pretrained('owner/name').parameters()))\n"
        "try:\n"
        "    HubLightGLEAN.from_pretrained('owner/other')\n"
        "except InputError as error:\n"
        "    print(error)\n"
    )
    env = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    server.shutdown()
    lines = result.stdout.splitlines()
    assert lines[0].isdigit(), result.stderr
    assert lines[1].startswith("owner/other has no config.json")


def _hub(folder):
    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self._answer(head=True)

        def do_GET(self):
            self._answer(head=False)

        def _answer(self, head):
            name = self.path.removeprefix("/owner/name/resolve/main/").split("?")[0]
            if not self.path.startswith("/owner/name/") or not (folder / name).is_file():
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = (folder / name).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{len(content)}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            if not head:
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    return Hub
