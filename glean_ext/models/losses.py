"""R1, the losses of classifier and decoder pyramid, scaled gradients, and an early backward pass that saves memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def r1_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """R1: half the squared norm of the discriminator's gradient with respect to real images, averaged over the images.

    Source: Mescheder et al., "Which Training Methods for GANs do actually Converge?", ICML 2018, equation 9 without its
    weight.

    Args:
        logits: (N, 1), computed from ``images``.
        images: (N, 3, H, W), with ``requires_grad``.

    Returns:
        A scalar, fp32, that can be differentiated.
    """
    with torch.autocast(images.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)  # (N, 3, H, W)
        return gradient.float().square().sum((1, 2, 3)).mean() / 2


def label_losses(logits: Tensor, labels: Tensor, weight: float) -> dict[str, Tensor]:
    """The loss of a classifier, weighted cross-entropy, and ``label_top1``, the share of images that it has right.

    Args:
        logits: (N, classes), fp32.
        labels: The classes, whole numbers (N,).
        weight: Of the loss.
    """
    right = logits.argmax(1) == labels
    return {"loss_label": weight * F.cross_entropy(logits, labels), "label_top1": right.float().mean()}


def pyramid_loss(images: Sequence[Tensor], gt: Tensor) -> Tensor:
    """The mean absolute differences of smaller images, (N, 3, h, w), to the ground truth reduced by averaging, summed.

    Source: GFPGAN, CVPR 2021, section 3.2.
    """
    losses = [F.l1_loss(image.float(), F.interpolate(gt, image.shape[2:], mode="area")) for image in images]
    return torch.stack(losses).sum() if losses else gt.new_zeros(())


def scaled_gradient(image: Tensor, factor: Tensor) -> Tensor:
    """The images as they are, (N, C, H, W), whose gradient is multiplied with a factor for each, (N,)"""
    return image.detach() + factor[:, None, None, None] * (image - image.detach())


def backprop_early(losses: Callable[[Tensor], dict[str, Tensor]], image: Tensor) -> dict[str, Tensor]:
    """``losses(image)``, differentiated with respect to the image at once instead of in the backward pass.

    This frees the activations of the losses' network before this function returns; only the gradients, of the image's
    size, are kept. Under autocast to fp16 nothing is done early, because gradients need the scale that the loss gets
    later.

    Args:
        losses: Computes scalars by name from the image, with frozen networks only: parameters get no gradient.
        image: (N, 3, H, W)
    """
    device = image.device.type
    if torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16:
        return losses(image)
    names: list[str] = []  # filled by the call below
    return dict(zip(names, _BackpropEarly.apply(image, losses, names), strict=True))


class _BackpropEarly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, losses: Callable[[Tensor], dict[str, Tensor]], names: list[str]) -> Any:
        with torch.enable_grad():
            leaf = image.detach().requires_grad_()
            values = losses(leaf)
        names.extend(values)
        with torch.autocast(image.device.type, enabled=False):  # as in the backward pass
            grads = [torch.autograd.grad(v, leaf, retain_graph=name != names[-1])[0] for name, v in values.items()]
        ctx.save_for_backward(*grads)
        return tuple(value.detach() for value in values.values())

    @staticmethod
    def backward(ctx: Any, *weights: Tensor) -> Any:
        grads = zip(weights, ctx.saved_tensors, strict=True)
        return sum(weight * grad for weight, grad in grads), None, None
