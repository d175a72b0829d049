"""References of photographs: their faces are aligned, and each face of a photograph gets its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.faces import Identity
from support.references import CONFIG, noise, save_network

from glean_ext import checkpoints
from glean_ext.errors import InputError
from glean_ext.faces.alignment import align, side
from glean_ext.faces.photo_restorer import PhotoRestorer
from glean_ext.faces.references import FaceReferences, align_references
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.inference.references import Reference, resized
from glean_ext.networks.arcface import ArcFaceResNet18, gray_faces
from glean_ext.utils.imresize import imresize


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """net.safetensors and arcface.safetensors."""
    folder = tmp_path_factory.mktemp("home")
    save_network(folder)
    torch.manual_seed(0)
    checkpoints.save(ArcFaceResNet18().state_dict(), folder / "arcface.safetensors")
    return folder


@pytest.fixture
def notices() -> list[str]:
    return []


@pytest.fixture
def restorer(home, notices) -> ImageRestorer:
    weights = home / "net.safetensors"
    return ImageRestorer(CONFIG, weights, "cpu", dtype="float32", notify=lambda notice: notices.append(str(notice)))


@pytest.fixture(scope="module")
def two(portrait) -> np.ndarray:
    """(256, 512, 3) with two faces, which differ: one is mirrored and darker."""
    return np.hstack([portrait, portrait[:, ::-1] // 2])


def test_references_are_aligned_in_their_own_resolution(finder, portrait):
    (aligned,) = align_references([Reference(portrait, "me.png")], finder)
    quad = finder.find(portrait)[0].quad
    np.testing.assert_array_equal(aligned.pixels, align(portrait, quad, round(side(quad))))
    with pytest.raises(InputError) as error:
        align_references([Reference(portrait, "me.png"), Reference(noise(), "noise.png")], finder)
    assert str(error.value) == "noise.png: no face was found in this reference. Give others as references."


def test_without_an_embedder_every_face_gets_all(restorer, notices, finder, two, portrait):
    result = PhotoRestorer(restorer, save_faces=True, finder=finder, references=[portrait]).restore(two)
    assert "Every face gets all references, whoever it is. embedder, which recognises faces, would choose." in notices
    aligned = resized(align_references([Reference(portrait, "")], finder), (32, 32), print)
    for face in result.faces:
        crop = align(two, face.face.quad, 8)
        np.testing.assert_array_equal(face.crop, crop)
    plain = PhotoRestorer(restorer, save_faces=True, finder=finder).restore(two)
    with_references = PhotoRestorer(restorer.with_references(aligned), save_faces=True, finder=finder).restore(two)
    for one, other, without in zip(result.faces, with_references.faces, plain.faces, strict=True):
        assert np.abs(one.restored.astype(int) - other.restored).max() <= 3  # together or one by one
        assert np.abs(one.restored.astype(int) - without.restored).max() > 5


def test_an_embedder_gives_each_face_its_own(restorer, home, finder, two):
    """The references are the photograph's two faces, in the other order, and the first one once more in gray."""
    faces = finder.find(two)
    crops = [align(two, face.quad, 128) for face in faces]
    gray = np.repeat(np.rint(crops[0].mean(2, keepdims=True)), 3, 2).astype(np.uint8)
    found = [Reference(crop, "") for crop in (crops[1], crops[0], gray)]
    references = FaceReferences(restorer, found, str(home / "arcface.safetensors"))
    assert references.choose(two, faces) == [(1, 2), (0,)]
    assert references.choose(two, faces[1:]) == [(0, 1, 2)]
    inputs = [imresize(crop, size=(8, 8)) for crop in crops]
    results = references.restore([*inputs, inputs[0]], [(1, 2), (), (1, 2)])
    expected = restorer.with_references([references.images[1], references.images[2]])
    for result, image, one in zip(results, [*inputs, inputs[0]], [expected, restorer, expected], strict=True):
        assert np.abs(result.astype(int) - one.restore(image)).max() <= 1
    assert restorer.network_seconds > 0, "theirs count"


def test_faces_of_a_photograph_are_restored_with_their_own(restorer, home, finder, portrait):
    """Whatever their order: the nearer one, on the left, is restored last."""
    small = np.pad(imresize(portrait[:, ::-1] // 2, size=(192, 192)), ((0, 64), (0, 0), (0, 0)), mode="edge")
    photo = np.hstack([portrait, small])
    left, right = faces = finder.find(photo)
    assert left.size > right.size
    found = [Reference(align(photo, face.quad, 128), "") for face in faces]
    references = FaceReferences(restorer, found, str(home / "arcface.safetensors"))
    assert references.choose(photo, faces) == [(0,), (1,)]
    photos = PhotoRestorer(restorer, save_faces=True, match_colours=False, finder=finder, references=references)
    for number, face in enumerate(photos.restore(photo).faces):
        own, other = (references.restore([face.crop], [(which,)])[0].astype(int) for which in (number, 1 - number))
        assert np.abs(face.restored - own).max() <= 1 < np.abs(own - other).max()


def test_faces_are_recognised_by_their_luminance():
    """As GFPGAN's weights were trained, with BT.601's shares of red, green and blue."""
    image = torch.tensor([1.0, -1.0, 0.5])[None, :, None, None].expand(1, 3, 50, 50)
    expected = torch.full((1, 1, 128, 128), 0.2989 - 0.587 + 0.114 / 2)
    torch.testing.assert_close(gray_faces(image), expected)


def test_aligned_faces_get_all(restorer):
    references = [noise(seed=1), noise(seed=2)]
    result = PhotoRestorer(restorer, aligned=True, references=references, match_colours=False).restore(noise(8))
    np.testing.assert_array_equal(result.image, restorer.with_references(references).restore(noise(8)))


def test_what_cannot_be(restorer, home, finder):
    def fault(model: object, **arguments: object) -> str:
        with pytest.raises(InputError) as error:
            PhotoRestorer(model, **arguments)
        return str(error.value)

    embedder = str(home / "arcface.safetensors")
    assert fault(restorer, finder=finder, embedder=embedder) == "embedder has no effect without references."
    assert fault(restorer, aligned=True, references=[noise()], embedder=embedder) == (
        "embedder has no effect on aligned faces. Leave it out."
    )
    assert "are for models of ImageRestorer" in fault(Identity(8, 4), aligned=True, references=[noise()])
    assert "takes at most 8" in fault(restorer, aligned=True, references=[noise()] * 9)
