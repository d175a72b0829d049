"""The models of the page, which restore one job at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from glean_ext.batch.photo_stages import colourless
from glean_ext.batch.restore_pictures import restore_pictures
from glean_ext.errors import InputError, Notice
from glean_ext.faces.detection import FaceFinder
from glean_ext.faces.photo_restorer import PhotoRestorer, RestoredFace, crop_size
from glean_ext.inference.backend import Backend, NetworkOptions, NetworkSource, load_backend, resolve_model
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.inference.references import Reference, resized
from glean_ext.inference.size_policy import LIGHT_OVERLAP, SizePolicy
from glean_ext.network_settings import SEVERAL_RESULTS
from glean_ext.size_requirements import SizeRequirements, format_size
from glean_ext.utils.array_conversion import blend
from glean_ext.utils.image_io import decode_picture, decode_rgb
from glean_ext.utils.imresize import imresize
from glean_ext.utils.picture import Picture
from glean_ext.web.job_queue import Job, Order
from glean_ext.web.limits import Limits
from glean_ext.web.model_specs import ModelSpec


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded model.

    Attributes:
        spec: Where it is from.
        restorer: The model at work.
        about: A line that helps to choose a model.
        photos: It takes square images, as aligned faces are.
    """

    spec: ModelSpec
    restorer: ImageRestorer
    about: str
    photos: bool


class ModelWorker:
    """Restores jobs, one after the other: what :class:`glean_ext.web.job_queue.JobQueue` calls.

    Args:
        specs: The models; all of them are loaded now.
        device: As in :class:`ImageRestorer`.
        limits: How large results may be.

    Raises:
        InputError: A model or device that cannot be used.
    """

    def __init__(self, specs: Sequence[ModelSpec], device: str | None, limits: Limits):
        self._limits, self._device = limits, device
        self._job: Job | None = None
        self._finder: FaceFinder | None = None  # made for the first photo: mediapipe takes seconds to load
        self.models = {spec.name: self._load(spec) for spec in specs}

    def _load(self, spec: ModelSpec) -> Model:
        generator = NetworkSource(*resolve_model(spec.config, spec.checkpoint)).generator()
        # Engines take no seed and no fidelity, which orders bring.
        backend = "torch" if generator.get("fidelity_gate") or generator["type"] in SEVERAL_RESULTS else "auto"
        network = load_backend(spec.config, spec.checkpoint, NetworkOptions(self._device, backend=backend))
        return Model(
            spec, self._at_work(network), f"{spec.about} {_sizes(network.takes)}".strip(), takes_squares(network.takes)
        )

    def _at_work(self, network: Backend) -> ImageRestorer:
        takes, policy = network.takes, SizePolicy()
        if takes.any_size:
            period = max(takes.nominal)
            side = period * math.ceil(self._limits.tile / period) + LIGHT_OVERLAP
            # Where the memory does not suffice for such tiles, it says how large they can be.
            if network.memory().suffices((side, side), (side, side), takes.scale):
                policy = SizePolicy("tile", tile_size=side)
        return ImageRestorer(network, size_policy=policy, notify=self._notice, on_tile=self._tile)

    def _restorer(self, order: Order) -> ImageRestorer:
        """The model of an order, with its seed, and with its fidelity where the network has a gate for it."""
        model = self.models[order.model]
        network = model.restorer.network
        fidelity = order.fidelity if network.gated and order.fidelity else None
        if order.seed is None and fidelity is None:
            return model.restorer
        from glean_ext.inference.torch_backend import TorchBackend  # loads torch, after the server's checks

        assert isinstance(network, TorchBackend)
        network = network if order.seed is None else network.with_seed(order.seed)
        return self._at_work(network if fidelity is None else network.with_fidelity(fidelity))

    def restore(self, job: Job) -> dict[str, Any]:
        """Restore and write ``before.png``, ``result.png`` and the faces into the job's folder.

        Returns:
            What the page shows: sizes, and the number of faces.

        Raises:
            InputError: The image cannot be restored.
            Cancelled: The job is no longer wanted.
        """
        self._job, order = job, job.order
        job.report("reading the image")
        picture, job.content = decode_picture(job.content, order.name), b""
        references = [
            Reference(decode_rgb(content, name), name)
            for name, content in ((f"reference {number}", file) for number, file in enumerate(job.references, 1))
        ]
        job.references = ()
        rgb = picture.flattened
        if lost := picture.lost_when_flattened:
            job.notify(Notice(f"{order.name}: the result does not have {' and '.join(lost)}."))
        if order.kind == "photo":
            image, faces = self._photo(job, rgb, references)
        else:
            image, faces = self._whole(job, rgb, references), ()
        job.report("saving")
        return self._keep(job, rgb, image, faces)

    def _keep(self, job: Job, rgb: np.ndarray, image: np.ndarray, faces: tuple[RestoredFace, ...]) -> dict[str, Any]:
        size = image.shape[0], image.shape[1]
        _save(imresize(rgb, size=size), job, "before.png")
        _save(image, job, "result.png")
        displayed = faces[: self._limits.faces]
        for number, face in enumerate(displayed):
            assert face.crop is not None and face.restored is not None
            _save(face.crop, job, f"crop-{number}.png")
            _save(face.restored, job, f"face-{number}.png")
        if len(displayed) < len(faces):
            job.notify(Notice(f"{len(displayed)} of {len(faces)} faces are shown one by one; all are in the result."))
        width, height = size[::-1]
        return {
            "from": format_size(job.order.size),
            "size": format_size(size),
            "width": width,
            "height": height,
            "faces": len(displayed),
        }

    def _whole(self, job: Job, rgb: np.ndarray, references: Sequence[Reference]) -> np.ndarray:
        restorer, order = self._restorer(job.order), job.order
        if references:
            restorer = restorer.with_references(resized(references, restorer.output_size, job.notify))
        if restorer.takes.any_size:
            self._check_result(order.name, order.size, restorer.takes.scale)
        job.report("restoring")
        (outcome,) = restore_pictures(restorer, [Picture(rgb)], [order.name])
        restored = outcome.unwrap().pixels
        size = restored.shape[0], restored.shape[1]
        return blend(imresize(rgb, size=size), restored, 1 - self._mixed(order))

    def _mixed(self, order: Order) -> float:
        """The share of the input's pixels in the result: the fidelity, unless the network has it."""
        return 0 if self.models[order.model].restorer.network.gated else order.fidelity

    def _photo(
        self, job: Job, rgb: np.ndarray, references: Sequence[Reference]
    ) -> tuple[np.ndarray, tuple[RestoredFace, ...]]:
        order = job.order
        job.report("looking for faces")
        if self._finder is None:
            self._finder = FaceFinder()
        photos = PhotoRestorer(
            self._restorer(order),
            fidelity=self._mixed(order),
            save_faces=True,
            batch=1,  # progress is reported after each face
            finder=self._finder,
            references=[reference.pixels for reference in references],
        )
        faces = photos.find(rgb, order.name)
        if len(faces) > self._limits.max_faces:
            raise InputError(
                f"{order.name} has {len(faces)} faces, but at most {self._limits.max_faces} are restored here. Crop it."
            )
        result = photos.restore(rgb, order.name, lambda done, total: job.report("faces", done, total), faces)
        if result.notice:
            job.notify(Notice(result.notice))
        if result.colourless:
            job.notify(colourless(order.name))
        return result.image, result.faces

    def _check_result(self, name: str, size: tuple[int, int], scale: int) -> None:
        height, width = size[0] * scale, size[1] * scale
        if height * width > self._limits.result_pixels:
            raise InputError(
                f"{name}: the result would have {width}x{height} pixels, but at most "
                f"{self._limits.result_pixels / 1e6:g} million are made here. Scale the image down."
            )

    def _notice(self, notice: Notice) -> None:
        assert self._job is not None
        self._job.notify(notice)

    def _tile(self, done: int, total: int) -> None:
        job = self._job
        assert job is not None
        if job.order.kind == "photo":  # whose steps are the faces
            job.report(job.step, job.done, job.total)
        elif total > 1:
            job.report("tiles", done, total)


def _save(image: np.ndarray, job: Job, name: str) -> None:
    """Write a file of the job; errors do not name its path. A folder that was removed, as by closing, stays removed."""
    try:
        Image.fromarray(image).save(job.folder / name)
    except OSError as error:
        reason = error.strerror or "its temporary folder cannot be written to"
        raise InputError(f"{job.order.name}: the server could not keep the result ({reason}).") from error


def _sizes(takes: SizeRequirements) -> str:
    """A sentence about the sizes that a model takes."""
    if takes.scale == 1:
        return "Gives gray images of any size colours."
    if takes.any_size:
        return f"Takes images of any size, and makes them {takes.scale} times larger."
    return f"Resizes images to {format_size(takes.nominal)} pixels, and makes them {takes.scale} times larger."


def takes_squares(takes: SizeRequirements) -> bool:
    """Whether aligned faces can be given to a model."""
    try:
        crop_size(takes, None)
    except InputError:
        return False
    return True
