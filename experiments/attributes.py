"""The classifier that reads a cartoon face's attributes: whether restored faces keep eyes, mouth, hair and beard.

It is trained on original training images only. Its accuracy on original test images, below 1 because beards and hair
hide some attributes, is reported beside those of restored images.
"""

from __future__ import annotations

import json
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.domains import Domain
from experiments.experiment import RESULTS, WORK
from glean_ext import checkpoints
from glean_ext.utils.files import write_json

FILE = WORK / "attributes.safetensors"
RESULT = RESULTS / "attributes.json"
FILES = {  # by domain: the classifier, and how good it is
    "cartoons": (FILE, RESULT),
    "people": (WORK / "attributes_people.safetensors", RESULTS / "attributes_people.json"),
}
EPOCHS, BATCH, LR = 5, 50, 2e-3


class Classifier(nn.Module):
    """(N, 3, 64, 64) uint8 RGB -> logits of each attribute's values, a list of (N, V)"""

    def __init__(self, values: list[int]):
        super().__init__()
        widths = 3, 24, 48, 96, 128
        layers: list[nn.Module] = []
        for below, here in pairwise(widths):
            layers += [nn.Conv2d(below, here, 3, stride=2, padding=1), nn.BatchNorm2d(here), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2))
        self.heads = nn.Linear(widths[-1] * 16, sum(values))
        self.values = values

    def forward(self, images: Tensor) -> list[Tensor]:
        logits = self.heads(self.body(images.float() / 127.5 - 1))
        return list(logits.split(self.values, 1))


def classifier(domain: Domain) -> Classifier:
    """The trained classifier of a domain with attributes; it is trained when there is none yet."""
    net = Classifier([len(values) for values in domain.attributes.values()])
    file, result = FILES[domain.name]
    if not (file.exists() and result.exists()):
        train(net, domain)
        checkpoints.save(net.state_dict(), file)
        values = {part: accuracies(net, domain, domain.parts[part].images, part) for part in ("val", "test")}
        write_json(values, result)
    checkpoints.load_strict(net, checkpoints.read(file), file)
    return net.eval()


def own_accuracy() -> dict:
    """Its accuracies on original images, by part and attribute."""
    return json.loads(RESULT.read_text())


def train(net: Classifier, domain: Domain) -> None:
    torch.manual_seed(0)
    part = domain.parts["train"]
    optim = torch.optim.Adam(net.parameters(), LR)
    steps = EPOCHS * (len(part.images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optim, LR, steps)
    net.train()
    for _ in range(EPOCHS):
        order = torch.randperm(len(part.images)).split(BATCH)
        for index in order[: len(part.images) // BATCH]:
            images = part.images[index]
            images = images.flip(3) if torch.rand(()) < 0.5 else images
            logits = net(images)
            labels = part.labels[index].unbind(1)
            loss = torch.stack([F.cross_entropy(a, b) for a, b in zip(logits, labels, strict=True)]).sum()
            optim.zero_grad()
            loss.backward()
            optim.step()
            schedule.step()
    net.eval()


@torch.no_grad()
def accuracies(net: Classifier, domain: Domain, images: Tensor, part: str) -> dict[str, float]:
    """The share of right attributes, by attribute and as ``mean``; ``images`` are in the order of the part's labels."""
    labels = domain.parts[part].labels[: len(images)].unbind(1)
    logits = [torch.cat(parts) for parts in zip(*(net(batch) for batch in images.split(BATCH)), strict=True)]
    shares = {
        name: float((a.argmax(1) == b).float().mean())
        for name, a, b in zip(domain.attributes, logits, labels, strict=True)
    }
    return {**shares, "mean": sum(shares.values()) / len(shares)}
