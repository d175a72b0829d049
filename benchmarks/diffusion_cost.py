"""What a pass with a diffusion model of the size of Stable Diffusion 2.1 as the bank costs: random weights, fp32.

    python -m benchmarks.diffusion_cost [--threads N]

GLEANDiffusion as configs/glean_x4_sd21.py has it, the same with the VAE's decoder instead of its own, the U-Net of
diffusers alone, and GLEAN, 64 -> 512. Each runs once in a process of its own. Seconds are processor time, which other
processes hardly lengthen; memory is the peak of the pass, weights included, without the interpreter and its libraries.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from benchmarks.measure import describe_environment, reset_peak, resident_bytes
from glean_ext import cli
from glean_ext.config import generator_config, load_config
from glean_ext.networks import build_network, prepare_for_inference
from glean_ext.utils.files import write_json
from glean_ext.utils.heap import return_freed_memory

RESULTS = Path(__file__).parents[1] / "docs/performance_diffusion.json"
CONFIG = "glean_x4_sd21"
PIPELINE: dict[str, dict[str, Any]] = {  # Stable Diffusion 2.1 (base)
    "unet": {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    "vae": {
        "_class_name": "AutoencoderKL",
        "sample_size": 768,
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
    },
    "scheduler": {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear"},
}

Pass = tuple[nn.Module, Callable[[], object]]  # a network, and one pass of it


def restorer(**changes: Any) -> Pass:
    """GLEANDiffusion, 128 -> 512."""
    config = generator_config(load_config(CONFIG), CONFIG)
    net = build_network({**config, "pipeline": PIPELINE, "bank_init": "random", **changes})
    return net, lambda: net(torch.zeros(1, 3, 128, 128))


def unet() -> Pass:
    """The U-Net of diffusers, with as many tokens as the restorer has codes."""
    net: Any = import_module("diffusers").UNet2DConditionModel.from_config(PIPELINE["unet"])
    latent, tokens = torch.zeros(1, 4, 64, 64), torch.zeros(1, 16, 1024)
    return net, lambda: net(latent, 200, tokens)


def glean() -> Pass:
    """GLEAN with the paper's widths, 64 -> 512, in its form for inference."""
    config = generator_config(load_config("glean_x16_ffhq"), "glean_x16_ffhq")
    net = prepare_for_inference(build_network({**config, "in_size": 64, "out_size": 512, "init_cfg": None}))
    return net, lambda: net(torch.zeros(1, 3, 64, 64))


PASSES: dict[str, Callable[[], Pass]] = {
    "GLEANDiffusion, SD 2.1, 128 -> 512": restorer,
    "the same, decoder='none': the VAE's": lambda: restorer(decoder="none"),
    "the U-Net alone, diffusers": unet,
    "GLEANStyleGANv2, 64 -> 512": glean,
}


def measured(name: str, threads: int) -> dict[str, float]:
    """Parameters, seconds and bytes of one pass."""
    torch.set_num_threads(threads)
    import_module("diffusers")
    gc.collect()
    imports = resident_bytes("VmRSS")
    net, run = PASSES[name]()
    net.requires_grad_(False).eval()
    gc.collect()
    return_freed_memory()
    reset_peak("cpu")
    start = time.process_time()
    with torch.inference_mode():
        run()
    seconds = time.process_time() - start
    parameters = sum(p.numel() for p in net.parameters())
    return {"parameters": parameters, "cpu_seconds": seconds, "bytes": resident_bytes("VmHWM") - imports}


def main() -> None:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    threads = parser.parse_args().threads
    console, found = Console(), {}
    for name in PASSES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[name] = values = pool.apply(measured, (name, threads))
        console.print(
            f"{name}: {values['cpu_seconds']:.1f} s, {values['bytes'] / 2**30:.2f} GiB, "
            f"{values['parameters'] / 1e6:.0f} M parameters"
        )
    write_json({"passes": found, "threads": threads, **describe_environment("cpu")}, RESULTS)


if __name__ == "__main__":
    cli.run(main)
