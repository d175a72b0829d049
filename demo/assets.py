"""Makes the shipped weights: trains, converts to fp16, writes the file with its provenance, records the SHA-256."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from mmengine import Config

import glean_ext
from demo.render_faces import make_demo_data
from demo.train_bank import BANK, SIZE, Recipe, train_bank
from glean_ext import checkpoints
from glean_ext.engine.bank_samples import sample_sheet
from glean_ext.networks import StyleGAN2Generator, build_network
from glean_ext.utils.files import atomic_path, write_json

ASSETS = Path(glean_ext.__file__).parent / "assets"
HASHES = ASSETS / "SHA256.json"
SOURCES = {  # of the images of a domain
    "cartoons": "Derived from ToonHead by Johan Melin, CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
    "emoji": "Derived from @lobehub/fluent-emoji-3d 1.1.0, MIT",
}


def make_bank(data: Path, work_dir: Path, sheet: Path, init: str | None = None) -> Path:
    """Train the demo bank to the end of its recipe and ship it; samples are saved to ``sheet``.

    Training continues from the checkpoint in ``work_dir``; without one it starts from the bank ``init``, or from
    random weights.
    """
    make_demo_data(data)
    train_bank(data, work_dir, Recipe(), init=init)
    return ship_bank(work_dir / "last.pth", sheet)


def ship_bank(checkpoint: Path, sheet: Path) -> Path:
    """Write the bank of a training checkpoint as the shipped one, whether training is finished or not."""
    state = torch.load(checkpoint, weights_only=True)
    tensors = {
        f"{prefix}.{key}": value
        for prefix, part in (("generator_ema", "ema"), ("discriminator", "discriminator"))
        for key, value in state[part].items()
    }
    facts = {"recipe": json.dumps(state["recipe"]), "images_shown": str(state["shown"]), "init": state["init"]}
    path = ship(tensors, "demo_bank", facts)
    bank = StyleGAN2Generator(SIZE, **BANK)
    checkpoints.load_strict(bank, checkpoints.with_prefix(checkpoints.read(path), "generator_ema", path), path)
    with atomic_path(sheet) as partial:
        sample_sheet(bank).save(partial)
    return path


def make_glean(config: Path, data: Path, work_dir: Path, max_iters: int, init: str | None = None) -> Path:
    """Train a demo config until ``max_iters``, continuing in ``work_dir``, and ship its network under its name.

    It starts from the network ``init``, whose config may lack the fidelity gate, or from the bank alone.
    """
    from glean_ext.config import generator_config, load_config
    from glean_ext.engine.runner import train

    cfg = load_config(config)
    if domain_of(cfg) == "cartoons":
        make_demo_data(data)
    cfg.work_dir = str(work_dir)
    cfg.train_cfg.max_iters = cfg.param_scheduler.T_max = max_iters
    cfg.train_cfg.val_interval = max(1, max_iters // 4)
    if init is not None and not list(work_dir.glob("iter_*.pth")):
        cfg.load_from = str(save_start(init, generator_config(cfg, config), work_dir / "start.pth"))
    else:
        cfg.resume = True
    train(cfg)
    return ship_glean(config, work_dir / f"iter_{max_iters}.pth")


def save_start(init: str, generator: dict, path: Path) -> Path:
    """The network ``init`` as a training checkpoint of another config's network, which may have the gate besides."""
    own, state = build_network(generator).state_dict(), checkpoints.read(init)
    state |= {key: value for key, value in own.items() if key.startswith("fidelity_gate.")}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {f"generator.{key}": value.float() for key, value in state.items()}}, path)
    return path


def ship_glean(config: Path, checkpoint: Path) -> Path:
    """Ship the network of a training checkpoint, whose weights are averages, under the name of its config."""
    from glean_ext.config import generator_config, load_config

    cfg = load_config(config)
    net = build_network(generator_config(cfg, config))
    checkpoints.load_network_weights(net, checkpoint)
    iterations = checkpoint.stem.rpartition("iter_")[2]
    facts = {"config": config.name, "iterations": iterations, "seed": str(cfg.randomness.seed)}
    return ship(net.state_dict(), config.stem, facts, domain_of(cfg))


def domain_of(cfg: Config) -> str:
    """Which images a demo config trains on, by their folder."""
    return "emoji" if "emoji" in Path(cfg.train_dataloader.dataset.data_root).parts else "cartoons"


def save_half(tensors: dict[str, torch.Tensor], path: Path, facts: dict[str, str], domain: str) -> None:
    """Write a file of weights in fp16, with the source of the images that they were trained on."""
    halves = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
    checkpoints.save(halves, path, {"source": SOURCES[domain], **facts})


def ship(tensors: dict[str, torch.Tensor], name: str, facts: dict[str, str], domain: str = "cartoons") -> Path:
    """Write ``assets/<name>.safetensors`` in fp16 and record its hash."""
    path = ASSETS / f"{name}.safetensors"
    save_half(tensors, path, facts, domain)
    return record(path)


def record(path: Path) -> Path:
    """Note the hash of a file in the assets."""
    hashes = json.loads(HASHES.read_text()) if HASHES.exists() else {}
    hashes[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    write_json(dict(sorted(hashes.items())), HASHES)
    return path
