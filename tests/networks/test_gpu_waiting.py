"""What a processor gives a GPU to compute without waiting for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from support.biggan import NET, sizes
from support.networks import TINY
from torch import Tensor

from glean_ext.networks import build_network
from glean_ext.networks.arcface import gray_faces
from glean_ext.networks.augment import Augmentation

SIDE = 16  # pixels of the output


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def augmentation(device: str) -> Callable[[], Tensor]:
    change, images = Augmentation(), torch.rand(2, 3, SIDE, SIDE, device=device, requires_grad=True)
    change.p = 0.8
    return lambda: change(images)


def faces(device: str) -> Callable[[], Tensor]:
    images = torch.rand(2, 3, SIDE, SIDE, device=device, requires_grad=True)
    return lambda: gray_faces(images)


def of_a_class(device: str) -> Callable[[], Tensor]:
    net = build_network(NET | sizes(32, False) | {"bank_init": "random", "label": 3}).to(device)
    lq = torch.rand(2, 3, 8, 8, device=device)
    return lambda: net(lq)


def with_references(device: str) -> Callable[[], Tensor]:
    net = build_network(TINY | {"references": True}).to(device)
    lq, references = torch.rand(2, 3, 8, 8, device=device), torch.rand(2, 1, 3, SIDE, SIDE, device=device)
    return lambda: net(lq, references=references)


@pytest.mark.gpu
@pytest.mark.parametrize("make", [augmentation, faces, of_a_class, with_references])
def test_nothing_waits_for_a_gpu(make):
    run = make("cuda")
    run().sum().backward()  # libraries start
    with waiting_is_an_error():
        run().sum().backward()
