"""Tiny diffusion pipelines, of images and of latents, whose weights are random but nowhere zero."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from support.networks import randomize
from torch import nn

import glean_ext.plugin  # noqa: F401  (makes diffusers importable beside MMagic)
from glean_ext.networks import GLEANDiffusion

UNET = {"layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4}
IMAGES: dict[str, Any] = {
    "unet": {
        "_class_name": "UNet2DModel",
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": [8, 16, 16],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
        **UNET,
    },
    "scheduler": {"num_train_timesteps": 1000, "prediction_type": "epsilon"},
}
LATENTS: dict[str, Any] = {
    "unet": {
        "_class_name": "UNet2DConditionModel",
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [8, 16],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "cross_attention_dim": 12,
        **UNET,
    },
    "vae": {
        "_class_name": "AutoencoderTiny",
        "encoder_block_out_channels": [8, 8, 8],
        "decoder_block_out_channels": [8, 8, 8],
        "num_encoder_blocks": [1, 1, 1],
        "num_decoder_blocks": [1, 1, 1],
    },
    "scheduler": {"num_train_timesteps": 1000, "prediction_type": "v_prediction"},
}
PIPELINES = {"images": IMAGES, "latents": LATENTS}
SIZES: dict[str, Any] = {"in_size": 8, "out_size": 32, "num_codes": 3}
NETWORK: dict[str, Any] = {"rrdb_channels": 8, "num_rrdbs": 1, "encoder_channels": 8, "decoder_channels": 8}


def network(kind: str = "images", **settings: Any) -> GLEANDiffusion:
    """A small network around the pipeline ``kind``, with random weights in every layer."""
    arguments = {**SIZES, **NETWORK, "pipeline": PIPELINES[kind], "bank_init": "random", **settings}
    net = GLEANDiffusion(**arguments)
    randomize(net)
    return net.eval()


def save_pipeline(folder: Path, kind: str) -> dict[str, nn.Module]:
    """A pipeline's folder as diffusers writes it; returns the networks in it."""
    import diffusers

    networks = {}
    for name, config in PIPELINES[kind].items():
        if name == "scheduler":
            diffusers.DDPMScheduler.from_config(config).save_pretrained(folder / name)
            continue
        torch.manual_seed(len(networks))
        networks[name] = getattr(diffusers, config["_class_name"]).from_config(config)
        networks[name].save_pretrained(folder / name)
    return networks
