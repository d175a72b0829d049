"""Whole photographs: every face is found, aligned, restored and put back.

Points are (x, y) in pixels, as in :mod:`glean_ext.faces.detection`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, get_args

import numpy as np
from PIL import Image

from glean_ext.errors import InputError, Notice, require_at_least, require_fidelity, require_one_of
from glean_ext.faces.alignment import align
from glean_ext.faces.colour_matching import Tone, is_gray, to_gray, with_luminance
from glean_ext.faces.colour_matching import match_colours as matched
from glean_ext.faces.detection import Face, FaceFinder
from glean_ext.faces.face_mask import paste
from glean_ext.faces.head_mask import with_hair_and_ears, with_local_colours
from glean_ext.faces.occlusion import by_depth, visible_mask
from glean_ext.faces.references import FaceReferences, align_references
from glean_ext.faces.tracking import FaceTracks
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.inference.references import read_references
from glean_ext.inference.size_policy import scaled, size_of
from glean_ext.size_requirements import SizeRequirements
from glean_ext.utils.array_conversion import blend, to_8_bits
from glean_ext.utils.image_types import ImageLike, as_picture, name_of
from glean_ext.utils.imresize import imresize
from glean_ext.utils.messages import log_notice
from glean_ext.utils.picture import Picture

WhenNoFace = Literal["keep", "whole", "error"]
SMALL_PHOTO = 4_000_000  # pixels, about 2400 x 1600
ENLARGED = 2  # times its height and width, where it is small
WHEN_NO_FACE: tuple[str, ...] = get_args(WhenNoFace)
OutscaleRule = Literal["model", "auto"]
OUTSCALE_RULES: tuple[str, ...] = get_args(OutscaleRule)

Array = np.ndarray


class FaceModel(Protocol):
    """A model that restores aligned faces, as :class:`glean_ext.inference.image_restorer.ImageRestorer` does."""

    takes: SizeRequirements

    def restore(self, image: Array, /) -> Array:
        """(h, w, 3) -> (H, W, 3) RGB of one dtype; a crop of the size it takes gets ``takes.scale`` times larger."""


@dataclass(frozen=True, eq=False)
class RestoredFace:
    """A face that was put back.

    Attributes:
        face: Where it is, in pixels of the input.
        crop: (s, s, 3) RGB, the model's input; None without ``save_faces``.
        restored: (S, S, 3) RGB, the model's output with the colours matched; None without ``save_faces``.
    """

    face: Face
    crop: Array | None = None
    restored: Array | None = None


@dataclass(frozen=True, eq=False)
class PhotoResult:
    """A restored photograph.

    Attributes:
        image: (H, W, 3) RGB, uint8 or uint16 as the input.
        picture: The same with the transparency, the colour profile and the metadata of the input, as
            :func:`glean_ext.write_image` takes it.
        faces: From left to right.
        notice: One line where the photograph was not restored as requested: it has no face.
        colourless: The photograph is gray or toned, and so is the result.
    """

    image: Array
    picture: Picture
    faces: tuple[RestoredFace, ...] = ()
    notice: str | None = None
    colourless: bool = False


class PhotoRestorer:
    """Restores the faces of photographs. Making one is cheap when a ``finder`` is given.

    >>> restorer = glean_ext.ImageRestorer("demo_glean_x8", notify=print)
    >>> result = glean_ext.PhotoRestorer(restorer, fidelity=0.3).restore("photo.jpg")
    demo_glean_x8: A small demonstration that was trained on cartoon faces only: photographs become cartoons. ...
    >>> len(result.faces)
    1
    >>> glean_ext.write_image(result.picture, "restored.jpg")

    A face whose aligned square is larger in the photograph than the model's input is reduced to that input, and the
    model invents the lost detail: with a network that invents nothing, 175 pixels come back from 512 with 42 dB, from
    128 with 34 dB, from 64 with 28 dB. ``fidelity`` keeps some of the input.

    A colorizer colours each face as it was trained to, and the rest of the photograph as a whole. Luminance stays as it
    is, ``fidelity`` fades the colours, and ``'auto'`` keeps the size.

    Args:
        restorer: The model of aligned faces.
        outscale: Size of the result in sizes of the photograph; ``'model'`` is the model's scale (16 for 64 -> 1024).
            ``'auto'``: small photographs, of up to :data:`SMALL_PHOTO` pixels, are enlarged twice, as GFPGAN's and
            CodeFormer's programs do with all of them: else the restored faces would be reduced again. Larger ones, and
            those whose result would be too large to be written, keep their size.
        fidelity: In [0, 1]: weight of the input in the faces of the result. 0 is the restoration, 1 the input.
        only_center_face: Restore only the face nearest to the photograph's centre.
        aligned: Inputs are aligned faces: they are restored as a whole, without face detection, and the result has the
            model's output size.
        min_face: Smaller faces, in pixels of the input, are left alone; None as in :meth:`FaceFinder.find`.
        max_faces: Photographs with more faces are refused; None: any number is restored.
        when_no_face: ``'keep'``: only the background is processed. ``'whole'``: the model restores the photograph as a
            whole. ``'error'``: InputError.
        background: Enlarges or improves the photograph around the faces: (h, w, 3) -> (H, W, 3) RGB of one dtype. Its
            result is resized to the output's size. None is MATLAB's bicubic.
        match_colours: Give restored faces the colours of the input, see :mod:`glean_ext.faces.colour_matching`. Gray
            and toned photographs stay gray and keep their tone, whatever colours the networks make.
        save_faces: Keep the crops in the result: about 3 MB a face at 1024x1024.
        face_size: Side of the aligned crops in pixels, for models that take any size; None: the training size.
        batch: Number of crops that are restored before they are put back.
        restore_batch: Restores several crops at once; None calls ``restorer.restore`` for each.
        finder: A :class:`FaceFinder` to share; None makes one.
        references: Images of those whose faces are restored, or folders of them, for a network that takes references:
            the largest face of each is aligned, with ``aligned`` they are aligned faces.
        embedder: The weights of an ArcFace network, path or URL, which chooses the references of each face, see
            :class:`~glean_ext.faces.references.FaceReferences`; None: every face gets all of them.

    Raises:
        InputError: An argument that cannot be used, or nothing that finds faces is installed.
    """

    def __init__(
        self,
        restorer: FaceModel,
        outscale: float | OutscaleRule = 1,
        *,
        fidelity: float = 0,
        only_center_face: bool = False,
        aligned: bool = False,
        min_face: float | None = None,
        max_faces: int | None = None,
        when_no_face: WhenNoFace = "keep",
        background: Callable[[Array], Array] | None = None,
        match_colours: bool = True,
        save_faces: bool = False,
        face_size: int | None = None,
        batch: int = 8,
        restore_batch: Callable[[Sequence[Array]], Sequence[Array]] | None = None,
        finder: FaceFinder | None = None,
        references: ImageLike | Sequence[ImageLike] | FaceReferences = (),
        embedder: str | None = None,
    ):
        _check_ranges(outscale, fidelity, min_face, max_faces, when_no_face, batch)
        self.finder = finder if finder or aligned else FaceFinder()
        notify: Callable[[Notice], None] = log_notice
        if isinstance(restorer, ImageRestorer):
            restorer.size_policy.require_whole()
            restorer.warn_of_photographs()
            notify = restorer.notify
        if self.finder is not None:
            notify(Notice(self.finder.about))
        self.restorer = restorer
        self.colorizer = restorer if isinstance(restorer, ImageRestorer) and restorer.network.colorizes else None
        self.size = 0 if aligned else crop_size(restorer.takes, face_size)
        self.outscale = outscale
        self.fidelity = fidelity
        self.only_center_face = only_center_face
        self.aligned = aligned
        self.min_face = min_face
        self.max_faces = max_faces
        self.when_no_face = when_no_face
        self.background = background if background or self.colorizer is None else self.colorizer.restore
        self.match_colours = match_colours and self.colorizer is None
        self.save_faces = save_faces
        self.batch = batch
        self.references = references if isinstance(references, FaceReferences) else None
        if not isinstance(references, FaceReferences) and (read := read_references(references)):
            faces = read if self.finder is None else align_references(read, self.finder)
            self.references = FaceReferences(restorer, faces, embedder, aligned)
        elif embedder is not None:
            raise InputError("{embedder} has no effect without {references}.", ("embedder", "references"))
        self.restore_batch = restore_batch or (lambda crops: [restorer.restore(crop) for crop in crops])

    def restore(
        self,
        photo: ImageLike,
        name: str = "the photo",
        progress: Callable[[int, int], None] | None = None,
        faces: Sequence[Face] | None = None,
        tracks: FaceTracks | None = None,
    ) -> PhotoResult:
        """Restore a photograph.

        Args:
            photo: The path of a file, a picture of :func:`glean_ext.read_image`, an image of Pillow, or an array,
                (h, w, 3) uint8 or uint16 RGB.
            name: The photograph's name in errors and notices where it has no path.
            progress: Called after each batch with the number of restored faces and of all faces.
            faces: What :meth:`find` found in it, perhaps in another thread; None: :meth:`find` is called.
            tracks: Of a video's frame: what smooths the ``faces``, which are those that it follows.

        Returns:
            The result. Its image has round(h * outscale) rows and round(w * outscale) columns, unless ``aligned``.

        Raises:
            InputError: A file that cannot be read; no face, and ``when_no_face`` is ``'error'``; more than
                ``max_faces``; a result of more pixels than Pillow would read.
            TypeError: Something else, or an array of another shape or dtype.
        """
        name = name_of(photo, name)
        picture = as_picture(photo, name)
        rgb = picture.filled
        tone = Tone.of(rgb) if self.match_colours else None
        if self.colorizer is None:
            image, restored, notice = self._restore(rgb, name, progress, faces, tracks, tone, 1 - self.fidelity)
        else:
            image, restored, notice = self._coloured(self.colorizer, rgb, name, progress, faces, tracks)
        alpha = None if picture.alpha is None else imresize(picture.alpha, size=size_of(image))
        return PhotoResult(image, picture.with_pixels(image, alpha), restored, notice, tone is not None)

    def _coloured(
        self,
        colorizer: ImageRestorer,
        rgb: Array,
        name: str,
        progress: Callable[[int, int], None] | None,
        faces: Sequence[Face] | None,
        tracks: FaceTracks | None,
    ) -> tuple[Array, tuple[RestoredFace, ...], str | None]:
        """As :meth:`_restore`, by a colorizer."""
        if not is_gray(rgb):
            colorizer.notify(Notice(f"{name} is in colour; the model takes its luminance only."))
            rgb = to_gray(rgb)
        image, restored, notice = self._restore(rgb, name, progress, faces, tracks, None, 1.0)
        gray = imresize(rgb, size=size_of(image))
        return blend(gray, with_luminance(image, gray), 1 - self.fidelity), restored, notice

    def _restore(
        self,
        rgb: Array,
        name: str,
        progress: Callable[[int, int], None] | None,
        faces: Sequence[Face] | None,
        tracks: FaceTracks | None,
        tone: Tone | None,
        opacity: float,
    ) -> tuple[Array, tuple[RestoredFace, ...], str | None]:
        """The image, the faces and the notice of a result; ``opacity`` is the weight of restored faces."""
        if self.aligned:
            references = self.references
            run = self.restorer.restore if references is None else references.restore_with_all
            restored = _toned(run(rgb), tone)
            image = blend(imresize(rgb, size=size_of(restored)), restored, opacity)
            return _toned_if_gray(image, tone), (), None
        scale = self._scale(size_of(rgb))
        size = scaled(size_of(rgb), scale, name)
        faces = self.find(rgb, name) if faces is None else faces
        if not faces:
            image, notice = self._without_faces(rgb, size, name, tone)
            return image, (), notice
        image = self._background(rgb, size, tone)
        done: dict[int, RestoredFace] = {}
        order, seen = by_depth(faces), to_8_bits(rgb)  # what the masks are made from
        chosen = [] if self.references is None else self.references.choose(rgb, faces)
        for start in range(0, len(faces), self.batch):
            batch = order[start : start + self.batch]
            crops = [_toned_if_gray(align(rgb, faces[index].quad, self.size), tone) for index in batch]
            if self.references is None:
                results = self.restore_batch(crops)
            else:
                results = self.references.restore(crops, [chosen[index] for index in batch])
            for index, crop, restored in zip(batch, crops, results, strict=True):
                face = faces[index]
                mask = visible_mask(face, faces, seen)
                restored = self._finished(restored, crop, face, mask, tracks, tone)
                smooth = None if tracks is None else partial(tracks.average, face, "head")
                paste(image, restored, face, with_hair_and_ears(mask, face, faces, seen, smooth), scale, opacity)
                done[index] = RestoredFace(face, crop, restored) if self.save_faces else RestoredFace(face)
            if progress is not None:
                progress(len(done), len(faces))
        return _toned_if_gray(image, tone), tuple(done[index] for index in range(len(faces))), None

    def _finished(
        self, restored: Array, crop: Array, face: Face, mask: Array, tracks: FaceTracks | None, tone: Tone | None
    ) -> Array:
        """What is pasted of a restored crop: with the colours of the photograph, and smoothed over the frames."""
        if self.match_colours:
            smooth = None if tracks is None else partial(tracks.average, face, "colours")
            restored = with_local_colours(matched(restored, crop, mask, smooth), crop, mask)
            restored = _toned(restored, tone)
        return restored if tracks is None else tracks.smooth(face, restored)

    def _scale(self, size: tuple[int, int]) -> float:
        """Of the result of a photograph with (height, width) pixels."""
        if self.outscale == "auto":
            if self.colorizer is not None:
                return 1
            pixels = size[0] * size[1]
            limit = min(SMALL_PHOTO, (Image.MAX_IMAGE_PIXELS or math.inf) / ENLARGED**2)
            return ENLARGED if pixels <= limit else 1
        return self.restorer.takes.scale if self.outscale == "model" else self.outscale

    def find(self, rgb: Array, name: str = "the photo") -> list[Face]:
        """The faces to restore, from left to right; any thread may call it.

        Raises:
            InputError: There are more than ``max_faces``.
        """
        if self.finder is None:
            return []
        faces = self.finder.find(to_8_bits(rgb), self.min_face)
        if self.max_faces is not None and len(faces) > self.max_faces and not self.only_center_face:
            raise InputError(
                f"{name} has {len(faces)} faces, more than {self.max_faces}.",
                parameter=("max_faces", "min_face"),
                hint="Raise {min_face}, which leaves small ones alone, or {max_faces}.",
            )
        if self.only_center_face and faces:
            centre = np.array([rgb.shape[1], rgb.shape[0]]) / 2
            faces = [min(faces, key=lambda face: np.hypot(*(face.box.reshape(2, 2).mean(axis=0) - centre)))]
        return faces

    def _without_faces(self, rgb: Array, size: tuple[int, int], name: str, tone: Tone | None) -> tuple[Array, str]:
        """The image and the notice of a result."""
        if self.when_no_face == "error":
            raise InputError(
                f"{name}: no face was found.",
                parameter=("when_no_face", "min_face", "aligned"),
                hint="Lower {min_face} if faces are small; an aligned face needs {aligned}.",
            )
        image = self._background(rgb, size, tone)
        if self.colorizer is not None:
            return image, f"{name}: no face was found; it was coloured as a whole."
        if self.when_no_face == "keep":
            return image, f"{name}: no face was found; nothing was restored."
        restored = imresize(_toned(self.restorer.restore(rgb), tone), size=size)
        image = _toned_if_gray(blend(image, restored, 1 - self.fidelity), tone)
        return image, f"{name}: no face was found; it was restored as a whole."

    def _background(self, rgb: Array, size: tuple[int, int], tone: Tone | None) -> Array:
        image = self.background(rgb) if self.background else rgb
        if image.dtype != rgb.dtype or image.ndim != 3 or image.shape[2] != 3:
            raise TypeError(f"background must return (H, W, 3) {rgb.dtype} RGB, but made {image.shape} {image.dtype}.")
        if self.background:
            image = _toned(image, tone)
        return _toned_if_gray(imresize(image, size=size), tone)  # a copy even where the size stays


def _toned(image: Array, tone: Tone | None) -> Array:
    return image if tone is None else tone.apply(image)


def _toned_if_gray(image: Array, tone: Tone | None) -> Array:
    """Resampling and blending round the channels one by one, which gray photographs must not show."""
    return tone.apply(image) if tone is not None and tone.gray else image


def _check_ranges(
    outscale: float | OutscaleRule,
    fidelity: float,
    min_face: float | None,
    max_faces: int | None,
    when_no_face: str,
    batch: int,
) -> None:
    """Raises: InputError for a number out of range or an unknown choice."""
    require_fidelity(fidelity)
    if outscale not in OUTSCALE_RULES and not (isinstance(outscale, (int, float)) and 0 < outscale < np.inf):
        raise InputError(f"outscale is {outscale!r}, but it must be a positive number, 'model' or 'auto'.", "outscale")
    require_one_of("when_no_face", when_no_face, WHEN_NO_FACE)
    if min_face is not None and not min_face > 0:
        raise InputError(
            f"min_face is {min_face}, but it is the side of a face in pixels.", "min_face", "Give a positive number."
        )
    for parameter, number in ("max_faces", max_faces), ("batch", batch):
        require_at_least(parameter, 1 if number is None else number, 1)


def crop_size(takes: SizeRequirements, face_size: int | None) -> int:
    """Side of the aligned crops for a model.

    Raises:
        InputError: The model does not take squares of that size.
    """
    size = takes.nominal if face_size is None else (face_size, face_size)
    if size[0] != size[1]:
        raise InputError(f"Aligned faces are square, but the model takes {takes}. Use a model of faces.")
    if not takes.accept(size):
        raise InputError(
            f"face_size is {face_size}, but the model takes {takes}.", "face_size", "Leave {face_size} out."
        )
    return size[0]
