"""Everything that a run of many files depends on, checked when it is made."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

from glean_ext.batch.output_plan import names_folder, require_suffix
from glean_ext.errors import InputError, require_at_least, require_fidelity
from glean_ext.inference.backend import ONNX, REALESRGAN, NetworkOptions
from glean_ext.inference.ncnn_weights import require_package
from glean_ext.inference.size_policy import SizePolicy
from glean_ext.network_settings import (
    max_references,
    require_network,
    require_number_of_references,
    require_several_results,
    sizes_of,
)
from glean_ext.utils.downloads import cache_folder, cached_name, is_url
from glean_ext.utils.files import expand_homes
from glean_ext.utils.image_io import MAX_PIXELS
from glean_ext.utils.image_writer import OUTPUT_FORMATS
from glean_ext.utils.shard import Shard
from glean_ext.utils.weight_files import local_path, require_weights
from glean_ext.workers import AUTO
from glean_ext.zoo import find_restorer

ALPHAS = ("upsample", "restore")
# Options of photographs in which faces are found
OF_FINDING = ["only_center_face", "min_face", "max_faces", "when_no_face", "save_faces", "background", "embedder"]
WHEN_NO_FACE = ("keep", "whole", "error")
MAX_CRF = 51


def require(holds: bool, parameter: str, value: object, rule: str) -> None:
    """Refuse a parameter's value.

    Raises:
        InputError: ``holds`` is false.
    """
    if not holds:
        raise InputError(f"{{{parameter}}} is {value}, but it must be {rule}.", parameter)


@dataclass(frozen=True)
class ModelSource:
    """A config and its checkpoint, an ONNX model without one, or ``'realesrgan'``.

    Raises:
        InputError: A checkpoint is missing, or given for an ONNX model.
    """

    config: str
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        expand_homes(self, "config", "checkpoint")
        if self.is_onnx and self.checkpoint is not None:
            raise InputError(f"{self.config} is an ONNX model, which needs no checkpoint. Leave it out.", "checkpoint")
        if not self.is_onnx and self.config != REALESRGAN and self.checkpoint is None:
            raise InputError(f"{self.config} is no ONNX model: it needs a checkpoint, too.", "checkpoint")

    @classmethod
    def named(cls, name: str) -> ModelSource:
        """A model of the zoo.

        Raises:
            InputError: No model has that name, or it is a bank.
        """
        card = find_restorer(name)
        return cls(card.config, card.weights)

    def check(
        self,
        cfg_options: Sequence[str] = (),
        size_policy: SizePolicy | None = None,
        seed: int | None = None,
        references: int = 0,
    ) -> None:
        """Read the config, and look for the weights, which takes less time than to load PyTorch.

        Raises:
            InputError: The config or the weights are missing, or the config, its changes, or the size policy, seed or
                number of references for its network cannot be used.
        """
        if self.config == REALESRGAN:
            require_package()
        if self.checkpoint is None:
            require_number_of_references(references, 0)
            return  # an ONNX model, which is loaded as fast
        from glean_ext.config import generator_config, load_config

        generator = generator_config(load_config(self.config, cfg_options), self.config)
        require_network(generator)
        if seed is not None:
            require_several_results(generator)
        require_number_of_references(references, max_references(generator))
        if size_policy is not None and (takes := sizes_of(generator)) is not None:
            size_policy.for_network(takes)
        require_weights(self.checkpoint)

    def fetch(self) -> Path | None:
        """The file of the weights, which is downloaded where it is not there; None for models without a checkpoint.

        Raises:
            InputError: There is no such file, or the download failed.
        """
        return None if self.checkpoint is None else local_path(self.checkpoint)

    def has_gate(self, cfg_options: Sequence[str] = ()) -> bool:
        """Whether the config has the fidelity gate.

        Raises:
            InputError: The config cannot be used.
        """
        if self.checkpoint is None:
            return False
        from glean_ext.config import generator_config, load_config

        return bool(generator_config(load_config(self.config, cfg_options), self.config).get("fidelity_gate"))

    @property
    def is_missing(self) -> bool:
        """Whether :meth:`fetch` has to download the weights."""
        weights = self.checkpoint or ""
        return is_url(weights) and not (cache_folder() / cached_name(weights)).is_file()

    @property
    def is_onnx(self) -> bool:
        return self.config.lower().endswith(ONNX)


@dataclass(frozen=True)
class PhotoOptions:
    """How whole photographs are treated, whose faces are found, restored and put back.

    Args:
        fidelity: In [0, 1]: 0 restores, 1 keeps the input. The weight of the fidelity gate where the model has one,
            else the share of the input in the faces of the result.
        only_center_face: Restore the face nearest to the middle only.
        aligned: Inputs are aligned faces already; then the options but ``fidelity`` have no effect, and are refused.
        min_face: Smaller faces, in pixels of the input, are left alone; None: 32 pixels or more.
        max_faces: Photographs with more faces are refused; None: any number is restored.
        when_no_face: ``'keep'`` such a photograph, restore it as a ``'whole'``, or ``'error'``.
        save_faces: Folder for the aligned faces, before and after; None: they are not written.
        background: What enlarges all but the faces, such as ``ModelSource("realesrgan")``; None is MATLAB's bicubic.
        embedder: The weights of an ArcFace network, path or URL, which chooses the references of each face; None: every
            face gets all of them.

    Raises:
        InputError: A value out of range.
    """

    fidelity: float = 0.0
    only_center_face: bool = False
    aligned: bool = False
    min_face: float | None = None
    max_faces: int | None = 200
    when_no_face: Literal["keep", "whole", "error"] = "keep"
    save_faces: Path | None = None
    background: ModelSource | None = None
    embedder: str | None = None

    def __post_init__(self) -> None:
        expand_homes(self, "save_faces", "embedder")
        for option in fields(self) if self.aligned else ():
            if option.name in OF_FINDING and getattr(self, option.name) != option.default:
                raise InputError(f"{{{option.name}}} has no effect on aligned faces. Leave it out.", option.name)
        require_fidelity(self.fidelity)
        require(self.min_face is None or self.min_face > 0, "min_face", self.min_face, "a positive number of pixels")
        require(self.max_faces is None or self.max_faces >= 1, "max_faces", self.max_faces, "at least 1")
        known = self.when_no_face in WHEN_NO_FACE
        require(known, "when_no_face", repr(self.when_no_face), f"one of {', '.join(WHEN_NO_FACE)}")


@dataclass(frozen=True)
class RestoreOptions:
    """What is restored, with which network, and what is written.

    Args:
        model: The network.
        inputs: Files, folders, and patterns with ``*``, ``?``, ``[...]`` and ``**``.
        output: A file, for one input; else a folder, which is made when it is not there. With a slash at its end it
            is a folder, whatever its name.
        device: ``'cpu'``, ``'cuda'``, ...; None takes the GPU when there is one.
        dtype: As in :class:`~glean_ext.inference.image_restorer.ImageRestorer`.
        compile: A mode of ``torch.compile``; None leaves that out.
        backend: What runs the network, and
        cache: whether engines' models are cached: as in ``ImageRestorer``.
        cfg_options: ``key=value`` changes to the config.
        batch: Images that go through the network together, where they have one size.
        size_policy: What happens to images of other sizes than the network takes.
        suffix: Is put after the names of results.
        format: Of images in a folder: ``'png'``, ``'jpg'`` or ``'webp'``; None: PNG. One that is named in ``output``
            has the format of its name.
        overwrite: Replace outputs that exist.
        skip_existing: Leave outputs alone that exist. Without either they are an error.
        outscale: Size of results in sizes of their inputs; None: what the network makes; with ``photo`` the
            ``'auto'`` of :class:`~glean_ext.faces.photo_restorer.PhotoRestorer`, of videos 1.
        alpha: Transparency gets the result's size by bicubic (``'upsample'``), or goes through the network
            (``'restore'``).
        compare: Also write ``NAME_compare.png``: before, bicubic, and after.
        crf: x264's constant rate factor of videos, 0 (lossless) to 51.
        temporal: Frames of videos are not restored independently of each other, but smoothed along their motion.
        photo: Inputs are photographs, whose faces are restored; None: inputs are restored as a whole.
        max_pixels: Images with more pixels are not read, and results with more are not written: small files may hold
            huge images.
        seed: Of a colorizer: which of its possible answers is given; None: the one in the middle.
        num: How many answers are given, of this seed (None: 0) and those that follow; their names end with
            ``_seed<N>``.
        fidelity: Without ``photo``, the weight of the model's fidelity gate, in [0, 1]; None: 0.
        shard: Only this part of the files is restored; None: all of them.
        workers: Processes that restore: a number, or ``'auto'`` for one a GPU, without GPUs one a core. None: this
            process alone, on a cluster ``'auto'``.
        cluster: Address of a Ray cluster, which has the workers then; None: they run on this machine.
        references: Images of what all inputs show, or folders of them, for networks that take references; with
            ``photo`` the largest face of each, unless ``photo.aligned``.

    Raises:
        InputError: A value out of range, or options that exclude each other.
    """

    model: ModelSource
    inputs: tuple[str | os.PathLike, ...]
    output: str | os.PathLike
    device: str | None = None
    dtype: str | None = None
    compile: str | None = None
    backend: str = "auto"
    cache: bool = True
    cfg_options: tuple[str, ...] = ()
    batch: int = 1
    size_policy: SizePolicy = field(default_factory=SizePolicy)
    suffix: str = ""
    format: Literal["png", "jpg", "webp"] | None = None
    overwrite: bool = False
    skip_existing: bool = False
    outscale: float | None = None
    alpha: Literal["upsample", "restore"] = "upsample"
    compare: bool = False
    crf: float = 10.0
    temporal: bool = False
    photo: PhotoOptions | None = None
    max_pixels: int = MAX_PIXELS
    seed: int | None = None
    num: int = 1
    fidelity: float | None = None
    shard: Shard | None = None
    workers: int | Literal["auto"] | None = None
    cluster: str | None = None
    references: tuple[str | os.PathLike, ...] = ()

    def __post_init__(self) -> None:
        expand_homes(self, "inputs", "output", "references")
        if not self.inputs:
            raise InputError("Nothing is given to restore. Give images, folders or videos.", "inputs")
        NetworkOptions(
            self.device,
            self.cfg_options,
            self.dtype,
            self.compile,
            self.seed,
            backend=self.backend,
            references=len(self.references),
        )
        if self.photo is not None and self.photo.embedder is not None and not self.references:
            raise InputError("{embedder} has no effect without {references}.", ("embedder", "references"))
        require(self.batch >= 1, "batch", self.batch, "at least 1")
        require_at_least("seed", self.seed or 0, 0)
        require_at_least("num", self.num, 1)
        if self.num > 1 and not names_folder(self.output):
            raise InputError(f"{self.output} is one file, but {{num={self.num}}} makes several. Give a folder.", "num")
        require_fidelity(self.fidelity or 0.0)
        if self.fidelity is not None and self.photo is not None:
            raise InputError("{fidelity} of photographs is that of PhotoOptions.", "fidelity")
        require(self.max_pixels >= 1, "max_pixels", self.max_pixels, "at least 1")
        if isinstance(self.workers, str):
            require(self.workers == AUTO, "workers", repr(self.workers), "auto, or a number from 1 on")
        elif self.workers is not None:
            require_at_least("workers", self.workers, 1)
        require(0 <= self.crf <= MAX_CRF, "crf", f"{self.crf:g}", f"between 0 (lossless) and {MAX_CRF}")
        require_outscale(self.outscale)
        require_alpha(self.alpha)
        require_suffix(self.suffix)
        require(
            self.format in (None, *OUTPUT_FORMATS), "format", repr(self.format), f"one of {', '.join(OUTPUT_FORMATS)}"
        )
        if self.overwrite and self.skip_existing:
            raise InputError("{overwrite} and {skip_existing} exclude each other.", ("overwrite", "skip_existing"))
        if self.photo is not None:
            self.size_policy.require_whole()
        if self.photo is not None and self.alpha == "restore":
            raise InputError(
                "{alpha=restore} has no effect with {photo}: transparency is upsampled. Leave it out.",
                ("alpha", "photo"),
            )

    def variants(self) -> list[RestoreOptions]:
        """A run for each of the ``num`` answers."""
        if self.num == 1:
            return [self]
        seeds = range(self.seed or 0, (self.seed or 0) + self.num)
        return [replace(self, seed=seed, num=1, suffix=f"{self.suffix}_seed{seed}") for seed in seeds]

    def gate_weight(self) -> float | None:
        """The weight of the model's fidelity gate; None: the model has no gate, or keeps its own.

        Raises:
            InputError: A weight for images as a whole, but the model has no gate; the config cannot be used.
        """
        wanted = self.fidelity if self.photo is None else self.photo.fidelity or None
        if wanted is None or self.model.has_gate(self.cfg_options):
            return wanted
        if self.photo is not None:
            return None
        raise InputError(
            "{fidelity} has no effect without {photo}: the model was trained without the fidelity gate.",
            ("fidelity", "photo"),
            "Leave {fidelity} out.",
        )

    @property
    def finds_faces(self) -> bool:
        """Whether inputs are searched for faces."""
        return self.photo is not None and not self.photo.aligned

    @property
    def background(self) -> ModelSource | None:
        """What enlarges all but the faces of photographs; None is bicubic."""
        return None if self.photo is None else self.photo.background

    def of_frames(self) -> dict[str, object]:
        """What the frames of a video depend on, besides the networks: with others an interrupted one starts again."""
        photo = None
        if self.photo is not None:
            photo = {key: value for key, value in vars(self.photo).items() if key not in ("save_faces", "background")}
        frames: dict[str, object] = {"size_policy": asdict(self.size_policy), "outscale": self.outscale, "photo": photo}
        more = {"seed": self.seed, "fidelity": self.fidelity, "temporal": self.temporal or None}
        return frames | {name: value for name, value in more.items() if value is not None}


def require_outscale(outscale: float | None) -> None:
    """Raise InputError unless ``outscale`` is None or a positive number."""
    holds = outscale is None or 0 < outscale < math.inf
    require(holds, "outscale", "" if outscale is None else f"{outscale:g}", "a positive number")


def require_alpha(alpha: str) -> None:
    """Raise InputError unless ``alpha`` is one of :data:`ALPHAS`."""
    require(alpha in ALPHAS, "alpha", repr(alpha), f"one of {', '.join(ALPHAS)}")
