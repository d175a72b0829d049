"""Reference images for the faces of photographs: the faces in them, and which face of a photograph gets which."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy

import numpy as np

from glean_ext.errors import InputError, Notice
from glean_ext.faces.alignment import align, side
from glean_ext.faces.detection import Face, FaceFinder
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.inference.references import Reference, resized
from glean_ext.network_settings import require_number_of_references
from glean_ext.utils.array_conversion import to_8_bits

Array = np.ndarray

EVERY_FACE = Notice(
    "Every face gets all references, whoever it is.", "embedder", "{embedder}, which recognises faces, would choose."
)


def align_references(references: Iterable[Reference], finder: FaceFinder) -> list[Reference]:
    """The largest face of each reference, aligned as in FFHQ, in the resolution of its image.

    Raises:
        InputError: One has no face.
    """
    aligned = []
    for reference in references:
        faces = finder.find(reference.pixels)
        if not faces:
            raise InputError(
                f"{reference.name}: no face was found in this reference.", "references", "Give others as {references}."
            )
        quad = max(faces, key=lambda face: face.size).quad
        aligned.append(Reference(align(reference.pixels, quad, max(1, round(side(quad)))), reference.name))
    return aligned


class FaceReferences:
    """Aligned references, of which each face of a photograph gets its own.

    With an embedder each reference goes to the face that is most like it, by the cosine of their embeddings; so no
    threshold has to fit how blurred a face is. Without one every face gets all references.

    Args:
        restorer: A network that takes references; an :class:`ImageRestorer`.
        references: Aligned faces.
        embedder: The weights of :class:`~glean_ext.networks.arcface.ArcFaceResNet18`, path or URL; None: none.
        aligned: Inputs are aligned faces, too, which get all references.

    Raises:
        InputError: The network takes fewer references, or none; weights that do not fit, or are of no use.
    """

    def __init__(
        self, restorer: object, references: Sequence[Reference], embedder: str | None = None, aligned: bool = False
    ):
        if not isinstance(restorer, ImageRestorer):
            raise InputError("{references} are for models of ImageRestorer. Leave it out.", "references")
        require_number_of_references(len(references), restorer.network.max_references)
        if aligned and embedder is not None:
            raise InputError("{embedder} has no effect on aligned faces. Leave it out.", "embedder")
        if not aligned and embedder is None:
            restorer.notify(EVERY_FACE)
        self.restorer = restorer
        self.images = resized(references, restorer.output_size, restorer.notify)
        self._embedder = None if embedder is None else Embedder(embedder)
        self._embeddings = None if self._embedder is None else self._embedder(self.images)  # (R, D)

    @property
    def all(self) -> tuple[int, ...]:
        """The numbers of all references."""
        return tuple(range(len(self.images)))

    def of(self, restorer: ImageRestorer) -> FaceReferences:
        """The same references, for another restorer of the same network."""
        other = copy(self)
        other.restorer = restorer
        return other

    def choose(self, photo: Array, faces: Sequence[Face]) -> list[tuple[int, ...]]:
        """For each face of a photograph, (H, W, 3), the numbers of its references."""
        if self._embedder is None or self._embeddings is None or not faces:
            return [self.all] * len(faces)
        crops = [to_8_bits(align(photo, face.quad, self._embedder.side)) for face in faces]
        likeness = self._embedder(crops) @ self._embeddings.T  # (F, R)
        owners = likeness.argmax(0)
        return [tuple(number for number in self.all if owners[number] == face) for face in range(len(faces))]

    def restore(self, crops: Sequence[Array], chosen: Sequence[tuple[int, ...]]) -> list[Array]:
        """Aligned faces, each with its references; those with the same ones go through the network together."""
        results: dict[int, Array] = {}
        for numbers in dict.fromkeys(chosen):
            group = [place for place, others in enumerate(chosen) if others == numbers]
            restorer = self.restorer.with_references([self.images[number] for number in numbers])
            results |= zip(group, restorer.restore_batch([crops[place] for place in group]), strict=True)
        return [results[place] for place in range(len(crops))]

    def restore_with_all(self, face: Array) -> Array:
        """An aligned face, with all references."""
        return self.restore([face], [self.all])[0]


class Embedder:
    """Embeddings of aligned faces, of length 1: the same person's have a high cosine."""

    def __init__(self, weights: str):
        from glean_ext.networks.arcface import SIDE, load_arcface  # torch, which loads for seconds

        self.side = SIDE
        self._network = load_arcface(weights).requires_grad_(False).eval()

    def __call__(self, faces: Sequence[Array]) -> Array:
        """(H, W, 3) uint8 RGB each -> (N, D) float32"""
        import torch
        import torch.nn.functional as F

        from glean_ext.networks.arcface import gray_faces
        from glean_ext.utils.array_conversion import to_tensor

        with torch.inference_mode():
            inputs = torch.cat([gray_faces(to_tensor(face)) for face in faces])
            embeddings: Array = F.normalize(self._network(inputs)).numpy()
        return embeddings
