"""Networks on the Hugging Face Hub: through a folder, and through a server that answers as the hub does."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from support import biggan, diffusion

from glean_ext.errors import InputError

pytest.importorskip("huggingface_hub")
from glean_ext.hub import HubGLEAN, HubGLEANBigGAN, HubGLEANColorization, HubGLEANDiffusion, HubLightGLEAN

SMALL = {"num_rrdbs": 1, "rrdb_channels": 4, "style_channels": 16, "num_mlps": 2, "channel_multiplier": 0.125}


BIGGAN = {"rrdb_channels": 8, "num_rrdbs": 1, "max_channels": 16}
NETWORKS = {
    "GLEAN": lambda bank: HubGLEAN(8, 64, max_channels=24, init_cfg=bank, **SMALL),
    "LightGLEAN": lambda bank: HubLightGLEAN(8, 64, max_channels=24, init_cfg=bank, **SMALL),
    "BigGAN": lambda bank: HubGLEANBigGAN(8, **biggan.sizes(32), class_names=list("abcdefg"), init_cfg=bank, **BIGGAN),
    "colorizer": lambda bank: HubGLEANColorization(32, 32, 8, max_channels=24, init_cfg=bank, **SMALL),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    return NETWORKS[request.param]({"type": "Pretrained", "checkpoint": "/home/me/bank.pth"}).eval()


def same_outputs(one, other) -> bool:
    image = torch.rand(1, 3, *one.size_requirements.nominal, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return torch.equal(one(image), other(image))


def test_a_folder_gives_the_same_network(network, tmp_path):
    network.save_pretrained(tmp_path)
    again = type(network).from_pretrained(tmp_path)
    assert not again.training and same_outputs(again, network)


def test_a_diffusion_pipeline_of_this_machine_is_written_out(tmp_path):
    for part, config in diffusion.LATENTS.items():
        (tmp_path / "sd" / part).mkdir(parents=True)
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        (tmp_path / "sd" / part / name).write_text(json.dumps(config))
    torch.manual_seed(0)
    network = HubGLEANDiffusion(**diffusion.SIZES, **diffusion.NETWORK, pipeline=tmp_path / "sd").eval()
    network.save_pretrained(tmp_path / "saved")
    (tmp_path / "sd").rename(tmp_path / "elsewhere")
    assert same_outputs(HubGLEANDiffusion.from_pretrained(tmp_path / "saved"), network)


def test_what_a_folder_holds(network, tmp_path):
    network.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["in_size"] in (8, 32) and config["max_channels"] in (16, 24)
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


def test_what_a_folder_lacks(tmp_path):
    with pytest.raises(InputError, match=r"has no config\.json\. Name a repository or folder that save_pretrained"):
        HubGLEAN.from_pretrained(tmp_path)
    for content, fault in [
        ("{", "config.json is no JSON"),
        (b"\xff{}", "config.json is no JSON"),
        ("[]", "config.json has no arguments of HubGLEAN"),
        ("5", "config.json has no arguments of HubGLEAN"),
        ('{"layers": 3}', "config.json has no arguments of HubGLEAN"),
        ('{"in_size": 8, "out_size": 7}', "HubGLEAN refuses the arguments (out_size must be a power of two"),
    ]:
        (tmp_path / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(InputError) as error:
            HubGLEAN.from_pretrained(tmp_path)
        assert fault in str(error.value)
    (tmp_path / "config.json").write_text(json.dumps({"in_size": 8, "out_size": 32, **SMALL}))
    with pytest.raises(InputError, match=r"has no model\.safetensors"):
        HubGLEAN.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="a/b/c is neither a folder nor the name of a repository"):
        HubGLEAN.from_pretrained("a/b/c")


USER = """
import torch
from glean_ext.errors import InputError
from glean_ext.hub import HubLightGLEAN

def fault(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except InputError as error:
        print(error)

read = HubLightGLEAN.from_pretrained
network = HubLightGLEAN(8, 64, max_channels=24, **{small})
network.push_to_hub("owner/name", token="{token}")
again = read("owner/name")
print(all(torch.equal(value, again.state_dict()[key]) for key, value in network.state_dict().items()))
fault(read, "owner/empty")
fault(read, "owner/secret")
fault(network.push_to_hub, "owner/name", token="hf_wrong")
"""
TOKEN = "hf_right"


def test_a_repository(tmp_path):
    """As a user has it: another process, in which the hub is at this address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _hub(tmp_path / "hub"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    env = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    code = USER.format(small=SMALL, token=TOKEN)
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    server.shutdown()
    assert [re.split(r"\. | for url", line)[0] for line in result.stdout.splitlines()] == [
        "True",
        "owner/empty has no config.json",
        "owner/secret: the hub shows no such repository",
        "owner/name: the hub refuses (Client error '401 Unauthorized'",
    ], result.stdout + result.stderr
    assert {path.name for path in (tmp_path / "hub").iterdir()} == {"README.md", "config.json", "model.safetensors"}


def _hub(folder):
    """What the hub answers about owner/name, whose files are in ``folder``, owner/empty, and one that is not shown."""
    folder.mkdir()

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self._file(head=True)

        def do_GET(self):
            self._file(head=False)

        def do_POST(self):
            content = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._answer(401)
            elif self.path == "/api/repos/create":
                self._answer(200, {"url": "owner/name"})
            elif "/preupload/" in self.path:
                files = [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for file in json.loads(content)["files"]
                ]
                self._answer(200, {"files": files})
            elif "/commit/" in self.path:
                for line in map(json.loads, content.splitlines()):
                    if line["key"] == "file":
                        (folder / line["value"]["path"]).write_bytes(base64.b64decode(line["value"]["content"]))
                self._answer(200, {"commitUrl": "http://127.0.0.1/owner/name/commit/0", "commitOid": "0" * 40})
            else:
                self._answer(200, {"errors": [], "warnings": []})  # of the model card

        def _file(self, head):
            repository, _, name = self.path.partition("?")[0].partition("/resolve/main/")
            if repository == "/owner/name" and (folder / name).is_file():
                content = (folder / name).read_bytes()
                headers = {"ETag": f'"{len(content)}"', "X-Repo-Commit": "0" * 40}
                self._answer(200, b"" if head else content, len(content), **headers)
            else:
                code = "EntryNotFound" if repository == "/owner/empty" else "RepoNotFound"
                self._answer(404, **{"X-Error-Code": code})

        def _answer(self, status, content=b"", length=None, **headers):
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for key, value in {"Content-Length": length or len(content), **headers}.items():
                self.send_header(key, str(value))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    return Hub
