"""What is measured: one forward of a network, or one training step of a restorer, ours or MMagic's."""

from __future__ import annotations

import copy
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from glean_ext import checkpoints
from glean_ext.errors import InputError
from glean_ext.inference.model_cost import measure
from glean_ext.inference.onnx_backend import OnnxBackend
from glean_ext.networks import StyleGAN2Discriminator, build_network, prepare_for_inference
from glean_ext.networks.shapes import Size

SEED = 0
MMAGIC_ARGUMENTS = {
    "in_size", "out_size", "img_channels", "rrdb_channels", "num_rrdbs", "style_channels", "num_mlps",
    "channel_multiplier", "blur_kernel", "lr_mlp",
}  # fmt: skip
MMAGIC_FIXED = {"max_channels": 512, "bank": "frozen", "inject_at": None, "decoder": "full"}

Weights = Mapping[str, Mapping[str, Tensor]]  # network -> state dict
Forward = Callable[[Tensor], Tensor]  # (N, 3, h, w) -> (N, 3, H, W)


@dataclass(frozen=True)
class Case:
    """One candidate, as plain values that can be sent to another process.

    Args:
        task: ``'infer'`` or ``'train'``.
        model: ``model`` of a config. The weights of its networks are random; ``init_cfg`` is ignored.
        mmagic: Use MMagic's classes instead of this package's.
        dtype: A name of :data:`glean_ext.utils.dtypes.DTYPES`.
        device: ``'cpu'``, ``'cuda'``, ...
        batch: Images in a batch.
        compile: Mode of ``torch.compile``; None for no compilation. Inference only.
        checkpoint: Weights of the network; None for random ones. Inference only.
        onnx: Run this file, written by ``tools/export.py``, with an engine. Inference on CPUs only.
        engine: ``'onnxruntime'`` or ``'openvino'``.
        prepared: In the fast form. Inference only.
        optim_wrapper: ``optim_wrapper`` of a config. Training only.
    """

    task: str
    model: dict
    mmagic: bool
    dtype: str
    device: str
    batch: int
    compile: str | None = None
    checkpoint: str | None = None
    onnx: str | None = None
    engine: str = "onnxruntime"
    prepared: bool = True
    optim_wrapper: dict | None = None

    @property
    def label(self) -> str:
        """Its name in tables, e.g. ``MMagic GLEAN float32``."""
        light = self.model["generator"]["type"].startswith("Light") and not self.mmagic
        maker = "MMagic" if self.mmagic else self.engine if self.onnx else "glean-ext"
        compiled = f" compiled ({self.compile})" if self.compile else ""
        plain = " plain" if not (self.prepared or self.onnx or self.mmagic) else ""
        return f"{maker} {'Light' * light}GLEAN {self.dtype}{plain}{compiled}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Workload(ABC):
    """What is timed.

    Args:
        case: What to build.
        weights: Loaded into the networks if they fit all of them; otherwise the weights are random.
    """

    networks: dict[str, nn.Module]
    shares_weights = True  # whether it has ``weights``; an ONNX file is expected to have them

    @abstractmethod
    def run(self) -> Any:
        """Run once and return the result."""

    @abstractmethod
    def first_run(self) -> tuple[int, Any]:
        """Run once; returns the FLOPs, in matrix products and convolutions, and the result."""

    def compile(self) -> None:  # noqa: B027  (most workloads have nothing to compile)
        """Compile the computation of the next run, if the case has a mode for it."""

    def load_weights(self, weights: Weights | None) -> None:
        weights = weights or {}
        self.shares_weights = all(_fits(net, weights.get(name)) for name, net in self.networks.items())
        if self.shares_weights:
            for name, net in self.networks.items():
                net.load_state_dict(weights[name], strict=True)


def _fits(net: nn.Module, weights: Mapping[str, Tensor] | None) -> bool:
    own = {name: tensor.shape for name, tensor in net.state_dict().items()}
    return weights is not None and own == {name: tensor.shape for name, tensor in weights.items()}


class Inference(Workload):
    """A forward pass; :meth:`run` returns the image (N, 3, H, W)."""

    def __init__(self, case: Case, weights: Weights | None = None):
        generator = case.model["generator"]
        kind = {"type": "GLEANStyleGANv2"} if case.mmagic else {}
        self.generator = _without_files({**generator, **kind})
        self.mode = case.compile
        self.net = onnx_network(case.onnx, case.engine) if case.onnx else self._torch_network(case, weights)
        shape = case.batch, generator.get("img_channels", 3), *sides(generator["in_size"])
        pixels = torch.rand(shape, generator=torch.Generator().manual_seed(SEED))
        self.lq = (2 * pixels - 1).to(case.device)

    def _torch_network(self, case: Case, weights: Weights | None) -> Forward:
        torch.manual_seed(SEED)
        plain = mmagic_generator(case.model["generator"]) if case.mmagic else build_network(self.generator)
        self.networks = {"generator": plain}
        self.load_weights(weights)
        net = (
            plain.eval()
            if case.mmagic or not case.prepared
            else prepare_for_inference(plain, getattr(torch, case.dtype))
        )
        self.networks = {"generator": net.to(case.device)}
        return self.networks["generator"]

    def compile(self) -> None:
        if self.mode:
            self.net = torch.compile(self.net, mode=self.mode)

    @torch.inference_mode()
    def run(self) -> Tensor:
        return self.net(self.lq)

    def first_run(self) -> tuple[int, Tensor]:
        """The FLOPs are those of the unfolded network: what its fast form computes twice is not counted twice."""
        with FakeTensorMode():
            costs = measure(build_network(self.generator), self.generator["in_size"], self.lq.shape[1])
        return len(self.lq) * costs["total"].flops, self.run()


def onnx_network(path: str, engine: str = "onnxruntime") -> Forward:
    """The network of an ONNX file, run by an engine with as many threads as torch uses."""
    network = OnnxBackend(path, torch.get_num_threads(), engine)
    return lambda lq: torch.from_numpy(network(lq.numpy()))


class FlopCount(TorchDispatchMode):
    """``FlopCounterMode`` without its tracking of modules, which fails in ``torch.autograd.grad``."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func.overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


class Training(Workload):
    """A training step as mmengine's runner performs it; :meth:`run` returns the losses."""

    def __init__(self, case: Case, weights: Weights | None = None):
        import_mmagic()
        from mmagic.registry import MODELS

        with random_vgg((case.model.get("perceptual_loss") or {}).get("vgg_type", "vgg19")) as vgg:
            torch.manual_seed(SEED)
            model = mmagic_model(case.model) if case.mmagic else our_model(case.model, vgg)
            if preprocessor := model.get("data_preprocessor"):  # mmengine would not search MMagic's registry
                model["data_preprocessor"] = MODELS.build(preprocessor)
            restorer = MODELS.build(model)
            if not case.mmagic and restorer.perceptual_loss is not None:
                restorer.perceptual_loss.init_weights()
        self.restorer = restorer.to(case.device).train()
        networks = {"generator": restorer.generator, "discriminator": restorer.discriminator}
        self.networks = {name: net for name, net in networks.items() if net is not None}
        self.load_weights(weights)
        self.optimizers = optimizers(restorer, case)
        self.data = batch(case.model["generator"], case.batch)

    def first_run(self) -> tuple[int, dict[str, float]]:
        with FlopCount() as counter:
            losses = self.run()
        return counter.total, losses

    def run(self) -> dict[str, float]:
        losses = self.restorer.train_step(dict(self.data), self.optimizers)
        return {name: value.item() for name, value in losses.items()}


def sides(size: Size) -> tuple[int, int]:
    """Height and width of a config's size."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


WORKLOADS: dict[str, type[Inference] | type[Training]] = {"infer": Inference, "train": Training}


def build(case: Case, weights: Weights | None = None) -> Inference | Training:
    """Build the workload of ``case``, ready to run."""
    return WORKLOADS[case.task](case, weights)


def shared_network(case: Case) -> nn.Module:
    """This package's network with the weights for all candidates: of ``case.checkpoint``, or random without zeros."""
    torch.manual_seed(SEED)
    generator = build_network(_without_files(case.model["generator"]))
    if case.checkpoint:
        checkpoints.load_network_weights(generator, case.checkpoint)
    else:
        move_off_zero(generator)
    return generator


def shared_weights(case: Case) -> Weights:
    """The weights for all candidates: see :func:`shared_network`."""
    weights = {"generator": shared_network(case).state_dict()}
    if case.task == "train" and (discriminator := case.model.get("discriminator")):
        arguments = {k: v for k, v in _without_files(discriminator).items() if k not in ("type", "bank_init")}
        weights["discriminator"] = StyleGAN2Discriminator(**arguments).state_dict()
    return weights


@torch.no_grad()
def move_off_zero(net: nn.Module) -> None:
    """Give biases and noise strengths random values: at their initial zero a part of the network has no effect."""
    for parameter in net.parameters():
        if not parameter.any():
            parameter.normal_(0, 0.1)


def _without_files(network: Mapping) -> dict:
    """A network's config with random weights instead of a file's."""
    kept = {k: v for k, v in network.items() if k != "init_cfg"}
    return kept | ({"bank_init": "random"} if "GLEAN" in str(network.get("type")) else {})


# MMagic's own


def import_mmagic() -> None:
    """Make MMagic importable, register this package's classes in it, and limit its log to warnings."""
    from mmengine.logging import MMLogger

    import glean_ext.plugin  # noqa: F401

    MMLogger.get_current_instance().setLevel("WARNING")


def mmagic_arguments(generator: Mapping) -> dict:
    """Those of our network's arguments that MMagic's GLEAN has, too.

    Raises:
        InputError: MMagic's class lacks an argument that changes the network.
    """
    fixed = dict(MMAGIC_FIXED)
    if generator["type"] != "GLEANStyleGANv2":  # LightGLEAN is compared with MMagic's GLEAN
        del fixed["decoder"]
    for name, value in fixed.items():
        if generator.get(name, value) != value:
            raise InputError(
                f"MMagic's GLEAN has no {name}, but the config sets it to {generator[name]!r}. Compare with --against "
                "CONFIG or --against none."
            )
    return {name: value for name, value in generator.items() if name in MMAGIC_ARGUMENTS}


def mmagic_generator(generator: Mapping) -> nn.Module:
    """MMagic's ``GLEANStyleGANv2`` of the same sizes."""
    import_mmagic()
    from mmagic.models.editors.glean.glean_styleganv2 import GLEANStyleGANv2

    return GLEANStyleGANv2(**mmagic_arguments(generator))


def mmagic_model(model: Mapping) -> dict:
    """The same training with MMagic's restorer, networks and losses."""
    from mmagic.models.editors.glean.glean_styleganv2 import GLEANStyleGANv2
    from mmagic.models.editors.srgan.srgan import SRGAN
    from mmagic.models.editors.stylegan2.stylegan2_discriminator import StyleGAN2Discriminator
    from mmagic.models.losses.perceptual_loss import PerceptualLoss

    theirs = {**copy.deepcopy(dict(model)), "type": SRGAN}
    theirs["generator"] = {"type": GLEANStyleGANv2, **mmagic_arguments(model["generator"])}
    if model.get("discriminator"):
        arguments = {k: v for k, v in model["discriminator"].items() if k not in ("type", "init_cfg", "max_channels")}
        theirs["discriminator"] = {"type": StyleGAN2Discriminator, **arguments}
    if loss := theirs.get("perceptual_loss"):
        low, _ = loss.pop("input_range", None) or (-1 if loss.get("norm_img", True) else 0, 1)
        theirs["perceptual_loss"] = {**loss, "type": PerceptualLoss, "norm_img": low < 0}
    for name in "r1_gamma", "r1_interval", "label_weight", "adversarial_from":  # only our restorer has them
        theirs.pop(name, None)
    return theirs


def our_model(model: Mapping, vgg: Path) -> dict:
    """The training of a config with random weights in bank, discriminator and VGG."""
    ours = copy.deepcopy(dict(model))
    ours["generator"] = _without_files(ours["generator"])
    if ours.get("discriminator"):
        ours["discriminator"] = _without_files(ours["discriminator"])
    if ours.get("perceptual_loss"):
        ours["perceptual_loss"] = {**ours["perceptual_loss"], "pretrained": str(vgg)}
    return ours


@contextmanager
def random_vgg(kind: str) -> Iterator[Path]:
    """Random weights for a VGG's features: the file that is returned, and the same in torchvision's cache.

    MMagic's loss always loads torchvision's file. There the classifier, which no loss uses, is one number a layer.
    """
    from torchvision.models import get_model, get_model_weights

    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in get_model(kind, weights=None).state_dict().items()}
    generator = torch.Generator().manual_seed(SEED)
    state = {name: torch.zeros(1, dtype=torch.float16).expand(shape) for name, shape in shapes.items()}
    for name, shape in shapes.items():
        if name.startswith("features.") and len(shape) == 4:
            state[name] = torch.empty(shape)
            nn.init.kaiming_normal_(state[name], nonlinearity="relu", generator=generator)
    before = {name: os.environ[name] for name in ("TORCH_HOME",) if name in os.environ}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hub" / "checkpoints" / Path(get_model_weights(kind).IMAGENET1K_V1.url).name
        path.parent.mkdir(parents=True)
        torch.save(state, path)
        features = Path(folder) / "features.pth"
        torch.save(
            {name: tensor.contiguous() for name, tensor in state.items() if name.startswith("features.")}, features
        )
        os.environ["TORCH_HOME"] = folder
        try:
            yield features
        finally:
            os.environ.pop("TORCH_HOME")
            os.environ.update(before)


# Parts of training


def optimizers(restorer: nn.Module, case: Case) -> Any:
    """The config's optimisers, in mixed precision unless ``dtype`` is float32."""
    from mmagic.engine.optimizers import MultiOptimWrapperConstructor

    precision = {"type": "OptimWrapper"}
    if case.dtype != "float32":
        precision = {"type": "mmagic.MixedPrecisionOptimWrapper", "dtype": case.dtype}
    wrappers = {}
    for name, wrapper in (case.optim_wrapper or {}).items():
        if isinstance(wrapper, Mapping) and getattr(restorer, name, None) is not None:
            left_out = {"fused"} if case.mmagic else set()  # as in MMagic's own configs
            optimizer = {k: v for k, v in wrapper["optimizer"].items() if k not in left_out}
            wrappers[name] = {**precision, "optimizer": optimizer}
    return MultiOptimWrapperConstructor(wrappers)(restorer)


def batch(generator: Mapping, size: int) -> dict[str, list]:
    """A batch in the form of the dataloader's, with random pixels."""
    from mmagic.structures import DataSample

    random = torch.Generator().manual_seed(SEED)

    def image(size: Size) -> Tensor:
        return torch.randint(0, 256, (3, *sides(size)), dtype=torch.uint8, generator=random)

    order = {"img_channel_order": "rgb", "gt_channel_order": "rgb"}
    return {
        "inputs": [image(generator["in_size"]) for _ in range(size)],
        "data_samples": [DataSample(gt_img=image(generator["out_size"]), metainfo=order) for _ in range(size)],
    }
