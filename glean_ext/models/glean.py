"""The restorer: the training of GLEAN (CVPR 2021, section 3.4)."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from mmagic.models.editors.srgan import SRGAN
from mmagic.registry import MODELS
from mmagic.structures import DataSample
from mmengine.optim import OptimWrapperDict
from torch import Tensor

from glean_ext.compat import set_backward_count
from glean_ext.errors import InputError
from glean_ext.models.losses import backprop_early, label_losses, pyramid_loss, r1_penalty, scaled_gradient
from glean_ext.network_settings import require_adversarial
from glean_ext.networks import LightGLEANStyleGANv2, channels_last
from glean_ext.networks.fidelity import draw_fidelity, has_gate
from glean_ext.networks.glean import GLEANNetwork
from glean_ext.networks.precision import full_precision, runs_in_fp16
from glean_ext.networks.references import max_references
from glean_ext.size_requirements import format_size


class GLEAN(SRGAN):
    """MSE + perceptual + adversarial training of a generator, alternating with a discriminator.

    The steps are those of MMagic's ``SRGAN``. Losses are computed in fp32 whatever precision the networks run in, and
    an output that does not match the ground truth in size is an error instead of a broadcast. The activations of VGG
    and of the discriminator are never in memory together. A network with the fidelity gate gets a weight w for every
    image, and its perceptual and adversarial losses count 1 - w (:mod:`glean_ext.networks.fidelity`). A network that
    takes references gets those of the data (:mod:`glean_ext.networks.references`).

    Args:
        generator: Config of the restoration network.
        pixel_loss: Config of the pixel loss, ``MSELoss`` in the paper.
        discriminator: Config of the discriminator; None trains without adversarial loss.
        gan_loss: Config of the adversarial loss; its weight (1e-2 in the paper) applies to the generator only.
        perceptual_loss: Config of the perceptual loss (weight 1e-2 in the paper); None leaves it out.
        train_cfg: ``disc_steps``, ``disc_repeat``, ``disc_init_steps`` as in ``SRGAN``.
        test_cfg: As in ``SRGAN``; not used.
        init_cfg: mmengine's initialisation of the whole model; the bank has its own in ``generator``.
        data_preprocessor: Config; images must reach the network as RGB in [-1, 1].
        r1_gamma: Weight of the R1 regularisation of the discriminator (see ``losses.r1_penalty``); 0, as in the paper,
            leaves it out. StyleGAN2 uses 10.
        label_weight: Weight of the cross-entropy of the network's classifier, for a bank with classes: then the images
            need labels (``labels`` of the dataset) in training. In tests, images without them get estimated ones.
        adversarial_from: The iteration from which on there are an adversarial loss and a discriminator's step; before
            it the other losses alone train the generator, as SRGAN starts from a network that was trained for PSNR.
        identity_loss: Config of an :class:`~glean_ext.models.identity_loss.IdentityLoss`; None leaves it out.
        pyramid_weight: Of the intermediate loss, for a network with ``pyramid=True``.
        pyramid_iters: Iterations after which it counts no more.
        reference_dropout: Share of the batches of a training that go without their references, so that the network does
            without them, too.
        r1_interval: R1 is computed every so many iterations, with its weight multiplied by this number ("lazy
            regularisation", Karras et al., CVPR 2020, section 3.1).

    Raises:
        InputError: Only one of ``discriminator`` and ``gan_loss``, or a discriminator for images of another size; R1
            with a negative weight, without a discriminator, or with an interval below 1; a negative
            ``adversarial_from``, or one without a discriminator; a ``reference_dropout`` outside of [0, 1].
    """

    def __init__(
        self,
        generator: dict,
        pixel_loss: dict,
        discriminator: dict | None = None,
        gan_loss: dict | None = None,
        perceptual_loss: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        r1_gamma: float = 0.0,
        r1_interval: int = 16,
        label_weight: float = 0.01,
        adversarial_from: int = 0,
        identity_loss: dict | None = None,
        pyramid_weight: float = 1.0,
        pyramid_iters: int = 50_000,
        reference_dropout: float = 0.3,
    ):
        require_adversarial({"generator": generator, "discriminator": discriminator, "gan_loss": gan_loss})
        if r1_gamma < 0 or r1_interval < 1 or (r1_gamma and not discriminator):
            raise InputError(
                f"model.r1_gamma={r1_gamma} with r1_interval={r1_interval}: R1 needs a discriminator, a weight of at "
                "least 0 and an interval of at least 1."
            )
        if adversarial_from < 0 or (adversarial_from and not discriminator):
            raise InputError(
                f"model.adversarial_from={adversarial_from}: it needs a discriminator, and is an iteration from 0 on."
            )
        if not 0 <= reference_dropout <= 1:
            raise InputError(f"model.reference_dropout is {reference_dropout}, but it is a share from 0 to 1.")
        super().__init__(
            generator=generator,
            discriminator=discriminator,
            gan_loss=gan_loss,
            pixel_loss=pixel_loss,
            perceptual_loss=perceptual_loss,
            train_cfg=train_cfg,
            test_cfg=test_cfg,
            init_cfg=init_cfg,
            data_preprocessor=data_preprocessor,
        )

        # MMagic's is a buffer: on a GPU, each question about it would wait for all that is computed.
        del self.step_counter
        self.step_counter: Tensor = torch.tensor(0)
        self.identity_loss = MODELS.build(identity_loss) if identity_loss else None
        self.num_classes: int = getattr(self.generator, "num_classes", 0)  # of the bank
        self.pyramid_weight, self.pyramid_iters = pyramid_weight, pyramid_iters
        # The network with pyramid images, behind torch's back: self.generator may become a wrapper of it.
        self.__dict__["_pyramid"] = self.generator if getattr(self.generator, "pyramid", None) is not None else None
        self.has_gate = has_gate(self.generator)
        self.max_references, self.reference_dropout = max_references(self.generator), reference_dropout
        self.label_weight = label_weight
        # Of the forward pass that g_step comes after:
        self._label_losses: dict[str, Tensor] = {}
        self._fidelity: Tensor | None = None  # (N,), drawn for a network with the fidelity gate
        self.r1_gamma, self.r1_interval, self.adversarial_from = r1_gamma, r1_interval, adversarial_from
        channels_last(self)

    def train_step(self, data: dict, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """One step of the generator, and one of the discriminator if the model has one.

        Raises:
            InputError: A network without an optimiser, images that are missing, or of different sizes.
        """
        for part in "generator", "discriminator":
            if getattr(self, part) is not None and part not in getattr(optim_wrapper, "optim_wrappers", ()):
                raise InputError(
                    f"optim_wrapper has no {part!r}. Set optim_wrapper=dict({part}=dict(optimizer=...), ..., "
                    "constructor='MultiOptimWrapperConstructor')."
                )
        require_images(data, "gt_img")
        refuse_mixed_sizes(data)
        return super().train_step(data, optim_wrapper)

    def val_step(self, data: dict) -> list[DataSample]:
        """Restore a batch.

        Raises:
            InputError: Images that are missing, or of different sizes.
        """
        require_images(data)
        refuse_mixed_sizes(data)
        return super().val_step(data)

    def test_step(self, data: dict) -> list[DataSample]:
        """Restore a batch, see :meth:`val_step`."""
        return self.val_step(data)

    def forward_tensor(self, inputs: Tensor, data_samples: DataSample | None = None, training: bool = False) -> Tensor:
        """(N, 3, h, w) -> (N, 3, H, W), both in [-1, 1].

        Raises:
            InputError: In training, images without labels for a bank with classes.
        """
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        labels = self._labels(data_samples, inputs.device) if self.num_classes else None
        if labels is None and self.num_classes and training:
            raise InputError(
                f"{type(self.generator).__name__} trains with labels, which these images do not have. Set labels of "
                "the dataset to 'folders' or to a JSON file."
            )
        given = {} if labels is None else {"label": labels}
        references = self._references(data_samples, inputs.device)
        if references is not None and not (training and torch.rand(()) < self.reference_dropout):
            given["references"] = references
        if training and self.has_gate:
            given["fidelity"] = self._fidelity = draw_fidelity(len(inputs), inputs.device)
        if not training or labels is None:
            return self.generator(inputs, **given)
        image, logits = self.generator(inputs, **given, with_logits=True)
        self._label_losses = label_losses(logits, labels, self.label_weight)
        return image

    def _labels(self, data_samples: DataSample | None, device: torch.device) -> Tensor | None:
        """The classes of a batch (N,); None where the images have none."""
        if data_samples is None or "gt_label" not in data_samples:
            return None
        return data_samples.gt_label.label.flatten().to(device)

    def _references(self, data_samples: DataSample | None, device: torch.device) -> Tensor | None:
        """The references of a batch, (N, R, 3, H, W) in [-1, 1]; None where the images have none.

        Raises:
            InputError: The network takes none.
        """
        if data_samples is None or "ref_img" not in data_samples:
            return None
        if not self.max_references:
            raise InputError(
                f"The images have references, but {type(self.generator).__name__} takes none here. Set references=True "
                "of model.generator, where it has that, or take LoadReferences out of the pipeline."
            )
        references = data_samples.ref_img.to(device, torch.float32)
        if references.ndim == 4:  # PackInputs drops the axis where each image has one
            references = references[:, None]
        return (references - self.data_preprocessor.mean) / self.data_preprocessor.std

    def extract_gt_data(self, data_samples: DataSample) -> Tensor:
        """The ground truth of a batch: (N, 3, H, W) in [-1, 1]."""
        return super().extract_gt_data(data_samples).contiguous(memory_format=torch.channels_last)

    def g_step(self, batch_outputs: Tensor, batch_gt_data: Tensor) -> dict[str, Tensor]:
        """Losses of the generator for output and ground truth, both (N, 3, H, W) in [-1, 1].

        Raises:
            InputError: The output and the ground truth differ in shape.
        """
        if batch_outputs.shape != batch_gt_data.shape:
            raise InputError(
                f"The network makes images of shape {tuple(batch_outputs.shape)}, but the ground truth has "
                f"{tuple(batch_gt_data.shape)}. generator.out_size must be the size of the GT images, and the "
                "dataset's scale out_size / in_size."
            )
        image = batch_outputs.float()
        losses = {"loss_pix": self.pixel_loss(image, batch_gt_data), **self._label_losses}
        if self._pyramid is not None:
            losses["loss_pyramid"] = self._intermediate_loss(self._pyramid, batch_gt_data)
        if (identity_loss := self.identity_loss) is not None:
            losses |= backprop_early(lambda image: {"loss_identity": identity_loss(image, batch_gt_data)}, image)
        if self._fidelity is not None:  # the other losses ask for detail that the input does not have
            image = scaled_gradient(image, 1 - self._fidelity)
        self._label_losses, self._fidelity = {}, None
        if self.perceptual_loss is not None:
            losses |= backprop_early(lambda image: self._perceptual_losses(image, batch_gt_data), image)
        if self.if_run_d():
            losses |= backprop_early(self._adversarial_loss, image)
        return {name: loss.float() for name, loss in losses.items()}

    def if_run_d(self) -> bool:
        """Whether this iteration has a discriminator's step and an adversarial loss."""
        return self.discriminator is not None and bool(self.step_counter >= self.adversarial_from)

    def _intermediate_loss(self, network: GLEANNetwork | LightGLEANStyleGANv2, gt: Tensor) -> Tensor:
        """That of the forward pass before; after ``pyramid_iters`` 0, with a gradient of 0 for every parameter."""
        weight = self.pyramid_weight if self.step_counter < self.pyramid_iters else 0.0
        padded = network.gt_padding.pad(gt) if isinstance(network, GLEANNetwork) else gt
        return weight * pyramid_loss(network.pyramid_images, padded)

    def _perceptual_losses(self, image: Tensor, gt: Tensor) -> dict[str, Tensor]:
        perceptual, style = self.perceptual_loss(image, gt)
        losses = {"loss_perceptual": perceptual, "loss_style": style}
        return {name: loss for name, loss in losses.items() if loss is not None}

    def _adversarial_loss(self, image: Tensor) -> dict[str, Tensor]:
        return {"loss_gan": self.gan_loss(self.discriminator(image), target_is_real=True, is_disc=False)}

    def d_step_with_optim(
        self, batch_outputs: Tensor, batch_gt_data: Tensor, optim_wrapper: OptimWrapperDict
    ) -> dict[str, Tensor]:
        """Train the discriminator on the ground truth and on the generator's output, which gets no gradient.

        Both are (N, 3, H, W) in [-1, 1]. The losses are ``loss_d_real``, ``loss_d_fake`` and, every ``r1_interval``
        iterations, ``loss_r1``, which shares the forward pass over the ground truth with ``loss_d_real``.
        """
        wrapper = optim_wrapper["discriminator"]
        count = wrapper.inner_count
        log_vars: dict[str, Tensor] = {}
        for losses_of, image in (self._losses_on_real, batch_gt_data), (self._losses_on_fake, batch_outputs.detach()):
            # The wrapper counts backward passes to accumulate gradients, and these two belong to one step.
            set_backward_count(wrapper, count)
            with wrapper.optim_context(self):
                losses = losses_of(image)
            loss, logged = self.parse_losses(losses)
            wrapper.backward(wrapper.scale_loss(loss))
            log_vars |= logged
        if wrapper.should_update():
            wrapper.step()
            wrapper.zero_grad()
        return log_vars

    def _losses_on_real(self, gt: Tensor) -> dict[str, Tensor]:
        if not self.r1_gamma or self.step_counter % self.r1_interval:
            return {"loss_d_real": self.gan_loss(self.discriminator(gt), target_is_real=True, is_disc=True)}
        gt = gt.detach().requires_grad_()
        # No loss scaling applies to this gradient, and in fp16 it would underflow.
        fp16 = runs_in_fp16(self.discriminator, gt.device)
        with full_precision(self.discriminator, gt.device) if fp16 else nullcontext():
            logits = self.discriminator(gt)
            penalty = self.r1_gamma * self.r1_interval * r1_penalty(logits, gt)
        return {"loss_d_real": self.gan_loss(logits, target_is_real=True, is_disc=True), "loss_r1": penalty}

    def _losses_on_fake(self, image: Tensor) -> dict[str, Tensor]:
        return {"loss_d_fake": self.gan_loss(self.discriminator(image), target_is_real=False, is_disc=True)}


def require_images(data: dict, *others: str) -> None:
    """Raise InputError for a batch without low-resolution images, or without ``others`` in its samples."""
    if not len(data.get("inputs", ())) or not all(name in sample for sample in data["data_samples"] for name in others):
        raise InputError(
            "The batch lacks images. The dataset's pipeline must make 'img' and, to train, 'gt', and end in "
            "dict(type='PackInputs'); configs/_base_/data.py has one."
        )


def refuse_mixed_sizes(data: dict) -> None:
    """Raise InputError for a batch of images of different sizes, which MMagic's preprocessor would silently pad."""
    first, *others = data["inputs"]
    for image, sample in zip(others, data["data_samples"][1:], strict=True):
        if image.shape != first.shape:
            path = sample.metainfo.get("gt_path", "An image")
            size, expected = (format_size(x.shape[-2:]) for x in (image, first))
            raise InputError(
                f"{path} gives a low-resolution image of {size} pixels, another of the batch has {expected}. Crop or "
                "resize all images to one size."
            )
