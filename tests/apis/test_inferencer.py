"""MMagicInferencer('glean' | 'lightglean'): results by value, wrong inputs, and the metafile behind it."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from mmengine import Config
from mmengine.registry import DefaultScope
from PIL import Image
from support import references
from support.biggan import NET, sizes
from support.networks import TINY, randomize

from glean_ext.apis import mmagic_inferencer as inferencer
from glean_ext.config import load_config
from glean_ext.errors import InputError
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.networks import build_network
from glean_ext.utils.image_io import read_rgb

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "configs" / "demo_glean_x8.py"
DEMO_WEIGHTS = "glean-ext://demo_glean_x8.safetensors"
CONFIG = {"model": {"generator": TINY}}  # 8x8 -> 16x16
LIGHT_CONFIG = {"model": {"generator": TINY | {"type": "LightGLEANStyleGANv2"}}}


@pytest.fixture(scope="module")
def make(mmagic_models):
    """MMagic's own class, on the CPU."""
    from mmagic.apis import MMagicInferencer

    return lambda *args, **kwargs: MMagicInferencer(*args, device="cpu", **kwargs)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Checkpoints of the tiny networks: model name -> path."""
    folder = tmp_path_factory.mktemp("weights")
    for name, config in ("glean", CONFIG), ("lightglean", LIGHT_CONFIG):
        torch.manual_seed(0)
        torch.save(randomize(build_network(config["model"]["generator"])).state_dict(), folder / f"{name}.pth")
    return {name: folder / f"{name}.pth" for name in ("glean", "lightglean")}


@pytest.fixture(scope="module")
def glean(make, weights):
    return make("glean", model_config=CONFIG, model_ckpt=weights["glean"])


@pytest.fixture(scope="module")
def restorer(weights):
    return ImageRestorer(CONFIG, weights["glean"], "cpu")


@pytest.fixture
def rgb():
    return noise(0)


@pytest.fixture
def path(rgb, tmp_path):
    return save(rgb, tmp_path / "in.png")


def noise(seed, height=8, width=8):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(rgb, path):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(rgb).save(path)
    return path


def left_in(folder):
    return sorted(file.name for file in folder.iterdir())


# What comes out


@pytest.mark.parametrize(
    "given",
    [
        lambda path: str(path),
        lambda path: path,
        lambda path: cv2.imread(str(path)),
        lambda path: Image.open(path),
        lambda path: cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2BGRA),
    ],
    ids=["str", "Path", "ndarray", "Pillow", "BGRA"],
)
def test_each_kind_of_input_gives_the_restorers_pixels(glean, restorer, rgb, path, tmp_path, given):
    """The result is BGR; the file has the same pixels, and a viewer shows the restorer's colours."""
    expected = restorer.restore(rgb)
    assert expected.shape == (16, 16, 3) and expected.std() > 1 and (expected != expected[..., ::-1]).any()
    result, image = glean.infer(img=given(path), result_out_dir=str(tmp_path / "out" / "restored.png"))
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    np.testing.assert_array_equal(image, expected[..., ::-1])
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "out" / "restored.png")), image)
    np.testing.assert_array_equal(read_rgb(tmp_path / "out" / "restored.png"), expected)
    np.testing.assert_array_equal(result["infer_results"].output.pred_img.permute(1, 2, 0), image)
    assert left_in(tmp_path / "out") == ["restored.png"]


def test_nothing_is_written_unasked(glean, path, tmp_path):
    result, image = glean.infer(img=path)
    assert image.shape == (16, 16, 3) and left_in(tmp_path) == ["in.png"]
    assert result["infer_results"].img_path == str(path)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1)])
def test_gray_arrays(glean, restorer, rgb, shape):
    expected = restorer.restore(np.repeat(rgb[..., :1], 3, axis=2))
    np.testing.assert_array_equal(glean.infer(img=rgb[..., 0].reshape(shape))[1], expected[..., ::-1])


def test_transparency_and_orientation_are_as_in_a_file(glean, restorer, rgb, tmp_path):
    alpha = noise(1)[..., 0]
    over_white = np.rint(255 + (rgb.astype(float) - 255) * alpha[..., None] / 255)
    _, image = glean.infer(img=np.dstack([rgb[..., ::-1], alpha]))
    low = np.clip(over_white, 0, 255).astype(np.uint8)
    read = inferencer.to_rgb(np.dstack([rgb[..., ::-1], alpha]), "img")
    assert np.abs(read.astype(int) - low).max() <= 1
    np.testing.assert_array_equal(image, restorer.restore(read)[..., ::-1])

    turned = Image.fromarray(rgb)
    turned.getexif()[0x0112] = 6  # a viewer turns it clockwise
    np.testing.assert_array_equal(
        glean.infer(img=turned)[1], restorer.restore(np.ascontiguousarray(np.rot90(rgb, -1)))[..., ::-1]
    )


def test_a_folder(glean, restorer, tmp_path):
    images = {f"{name}.png": noise(seed) for seed, name in enumerate("abc")}
    for name, rgb in images.items():
        save(rgb, tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (tmp_path / "in" / "film.mp4").write_text("no image either")
    results, restored = glean.infer(img=str(tmp_path / "in"), result_out_dir=str(tmp_path / "out"))
    assert left_in(tmp_path / "out") == list(images)
    assert [Path(result["infer_results"].img_path).name for result in results] == list(images)
    for image, (name, rgb) in zip(restored, images.items(), strict=True):
        np.testing.assert_array_equal(image[..., ::-1], restorer.restore(rgb))
        np.testing.assert_array_equal(cv2.imread(str(tmp_path / "out" / name)), image)
    np.testing.assert_array_equal(glean.infer(img=tmp_path / "in")[1], restored)
    message = fault(lambda: glean.infer(img=tmp_path / "in" / "film.mp4"))
    assert message == f"{tmp_path}/in/film.mp4 is a video, and img takes images. Restore it with glean-restore."


def test_a_list_in_batches(glean, restorer, path, tmp_path):
    """Images of the network's size, or resized to it, go through it together, all in their order."""
    lows = [noise(0), noise(1), noise(2, 12, 10), noise(3), noise(4)]
    shapes = []
    net = glean.inferencer.restorer.network.net
    hook = net.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(inputs[0].shape)))
    images = [path, lows[1][..., ::-1], lows[2][..., ::-1], Image.fromarray(lows[3]), lows[4][..., ::-1]]
    results, restored = glean.infer(img=images, result_out_dir=tmp_path / "out", batch_size=4)
    hook.remove()
    assert shapes == [(4, 3, 8, 8), (1, 3, 8, 8)]
    names = ["in.png", "00001.png", "00002.png", "00003.png", "00004.png"]
    assert left_in(tmp_path / "out") == sorted(names) and len(results) == 5
    for low, image, name in zip(lows, restored, names, strict=True):
        expected = restorer.restore(low)
        assert image.shape == expected.shape
        # a batch sums in another order, which may change the rounding
        assert np.abs(image[..., ::-1].astype(int) - expected).max() <= 1
        np.testing.assert_array_equal(cv2.imread(str(tmp_path / "out" / name)), image)


def test_a_list_of_one_gives_lists(glean, path):
    results, images = glean.infer(img=[path])
    assert isinstance(results, list) and [image.shape for image in images] == [(16, 16, 3)]


def test_lightglean_takes_any_size(make, weights):
    editor = make("lightglean", model_config=LIGHT_CONFIG, model_ckpt=weights["lightglean"])
    low = noise(0, 9, 13)
    expected = ImageRestorer(LIGHT_CONFIG, weights["lightglean"], "cpu").restore(low)
    assert expected.shape == (18, 26, 3)
    np.testing.assert_array_equal(editor.infer(img=low[..., ::-1])[1], expected[..., ::-1])


@pytest.mark.parametrize(
    "chosen", [{"model_setting": 17}, {"config_name": "demo_glean_x8"}, {"model_config": str(DEMO)}]
)
def test_the_shipped_model(make, rgb, chosen):
    if "model_config" in chosen:
        chosen["model_ckpt"] = DEMO_WEIGHTS
    _, image = make("glean", **chosen).infer(img=rgb[..., ::-1])
    np.testing.assert_array_equal(image[..., ::-1], ImageRestorer(DEMO, DEMO_WEIGHTS, "cpu").restore(rgb))


def test_size_policy(make, weights):
    editor = make("glean", model_config=CONFIG, model_ckpt=weights["glean"], extra_parameters={"size_policy": "tile"})
    low = noise(0, 12, 16)
    expected = ImageRestorer(CONFIG, weights["glean"], "cpu", "tile").restore(low)
    assert expected.shape == (24, 32, 3)
    np.testing.assert_array_equal(editor.infer(img=low[..., ::-1])[1], expected[..., ::-1])
    assert editor.inferencer.get_extra_parameters() == ["size_policy", "seed", "fidelity", "label"]


@pytest.mark.gpu
def test_on_a_gpu(mmagic_models, weights, restorer, rgb, path):
    from mmagic.apis import MMagicInferencer

    editor = MMagicInferencer("glean", model_config=CONFIG, model_ckpt=weights["glean"])
    assert editor.inferencer.restorer.network.device.type == "cuda"
    for image in [editor.infer(img=path)[1], *editor.infer(img=[path, path], batch_size=2)[1]]:
        assert np.abs(image[..., ::-1].astype(int) - restorer.restore(rgb)).max() <= 1


# Wrong inputs


def fault(call):
    """The message of the InputError that ``call`` raises: one line."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and message.endswith("."), message
    return message


def test_wrong_models(make, weights, tmp_path):
    def glean(**kwargs):
        return fault(lambda: make("glean", **kwargs))

    own = {"model_config": CONFIG, "model_ckpt": weights["glean"]}
    names = "glean_x8_cat, glean_x16_ffhq, "
    assert f"model_setting is 99, but 'glean' has 0 to 21: {names}" in glean(model_setting=99)
    assert "model_setting is -1, but" in glean(model_setting=-1)
    assert f"config_name is 'glean_x9_cat', but 'glean' has 0 to 21: {names}" in glean(config_name="glean_x9_cat")
    assert glean(model_setting=0, config_name="glean_x8_cat").startswith("Give one of model_setting and config_name")
    assert glean(**own, model_setting=0).startswith("Give model_config, or one of")
    no_weights = "has no released weights. Give model_ckpt, the path or URL of a checkpoint."
    assert fault(lambda: make("lightglean")) == f"lightglean_x16_ffhq {no_weights}"
    assert glean(model_config=str(DEMO)) == f"{DEMO} {no_weights}"
    assert glean(model_config=str(tmp_path / "no.py"), model_ckpt="x").endswith("Give the path of a config.")
    assert glean(model_config=5, model_ckpt="x").startswith("model_config is a int, but")
    light = glean(model_config=LIGHT_CONFIG, model_ckpt=weights["lightglean"])
    assert light.endswith("is of a LightGLEANStyleGANv2. Give model_name='lightglean', or another config.")
    assert glean(**own, extra_parameters={"size": 1}).startswith(
        "extra_parameters has size, but it may have size_policy, seed"
    )
    with pytest.raises(TypeError, match="model_cpkt"):
        make("glean", model_config=CONFIG, model_cpkt=weights["glean"])


def test_wrong_checkpoints(make, weights, tmp_path):
    def glean(checkpoint):
        return fault(lambda: make("glean", model_config=CONFIG, model_ckpt=checkpoint))

    missing = tmp_path / "no.pth"
    assert glean(missing) == f"{missing}: there is no such file. Give the path or URL of a checkpoint."
    assert "does not fit GLEANStyleGANv2: " in glean(weights["lightglean"])
    text, cut = tmp_path / "text.pth", tmp_path / "cut.pth"
    text.write_text("no checkpoint")
    cut.write_bytes(weights["glean"].read_bytes()[:-500])
    assert glean(text).startswith(f"{text} is no checkpoint")
    assert glean(cut).startswith(f"{cut} is truncated, damaged or no checkpoint")


def test_wrong_images(glean, rgb, path, tmp_path):
    folder = tmp_path / "files"
    text, cut, empty = folder / "text.png", save(rgb, folder / "cut.png"), folder / "empty.png"
    text.write_text("text")
    cut.write_bytes(cut.read_bytes()[:-60])
    empty.touch()
    out = tmp_path / "out" / "restored.png"
    as_opencv = "but it must be (h, w, 3) uint8, BGR, as cv2.imread returns it"
    cases = {
        "img is missing.": None,
        "img is an empty list.": [],
        f"{tmp_path / 'no.png'}: there is no such file": tmp_path / "no.png",
        f"{text} is no image": str(text),
        f"{cut} is truncated or damaged": cut,
        f"{empty} is empty (0 bytes).": empty,
        f"img is an array of shape (8, 8, 3) and dtype float64, {as_opencv}": rgb / 255,
        f"img is an array of shape (8, 8, 2) and dtype uint8, {as_opencv}": rgb[..., :2],
        f"img is an array of shape (1, 8, 8, 3) and dtype uint8, {as_opencv}": rgb[None],
        f"img is an array of shape (0, 8, 3) and dtype uint8, {as_opencv}": rgb[:0],
        "img is a Tensor, but it must be a path, an ndarray or an image of Pillow": torch.zeros(3, 8, 8),
        "img is truncated or damaged": Image.open(cut),
        "img has floating-point pixels": Image.new("F", (8, 8)),
    }
    for start, img in cases.items():
        target = out.parent if isinstance(img, list) else out
        assert fault(lambda img=img, target=target: glean.infer(img=img, result_out_dir=target)).startswith(start)
    assert fault(lambda: glean.infer(img="")).startswith("img is missing.")  # not the folder at hand
    assert not out.exists() and not (out.parent.exists() and left_in(out.parent))
    no_images = tmp_path / "none"
    no_images.mkdir()
    assert fault(lambda: glean.infer(img=no_images)).startswith(f"{no_images} has no images")


def test_wrong_calls(glean, rgb, path, tmp_path):
    def infer(**kwargs):
        return fault(lambda: glean.infer(**kwargs))

    before = path.read_bytes()
    assert infer(img=path, result_out_dir=tmp_path).startswith(f"{path} is the input and would be overwritten.")
    assert infer(img=[path], result_out_dir=tmp_path).startswith(f"{path} is an input and would be overwritten.")
    assert infer(img=path, result_out_dir=tmp_path / "o.tif").endswith(f"Name it {tmp_path / 'o.png'}.")
    assert infer(img=rgb, result_out_dir=tmp_path / "o.tif").endswith(f"Name it {tmp_path / 'o.png'}.")
    assert infer(img=[path], result_out_dir=tmp_path / "o.png").endswith("for a list of images it must be a folder.")
    twin = save(rgb, tmp_path / "other" / "in.png")
    assert f"{path} and {twin} would both be written to" in infer(img=[path, twin], result_out_dir=tmp_path / "out")
    assert infer(img=path, batch_size=0) == "batch_size is 0, but it must be a number from 1 on."
    assert infer(img=path, video="film.mp4") == "video: GLEAN restores images and takes none. Give img."
    with pytest.raises(TypeError, match="batchsize"):
        glean.infer(img=path, batchsize=2)
    assert path.read_bytes() == before and left_in(tmp_path) == ["in.png", "other"]


def test_what_is_left_out_of_a_folder_is_named(glean, rgb, tmp_path, caplog):
    folder = tmp_path / "in"
    for name in "a.png", "B.JFIF", ".hidden.png", ".Trash-0/c.png", "sub/d.png":
        save(rgb, folder / f"{name}.png").rename(folder / name)
    (folder / "film.mp4").touch()
    (folder / "notes.txt").touch()
    for out in "", tmp_path / "out", folder / "results":
        caplog.clear()
        _, results = glean.infer(img=folder, result_out_dir=out)
        assert len(results) == 2
        assert [record.getMessage().split(" Images are")[0] for record in caplog.records] == [
            f"{folder}: 2 images are used, 5 other files or folders are left out: .Trash-0, .hidden.png, film.mp4, "
            "notes.txt, sub."
        ]


def test_what_a_result_lacks_is_named(glean, rgb, tmp_path, caplog):
    pages = [Image.fromarray(rgb), Image.fromarray(255 - rgb)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    pages[0].convert("RGBA").save(tmp_path / "b.png")
    exif = Image.Exif()
    exif[0x010E] = "a title"
    pages[0].save(tmp_path / "c.jpg", exif=exif)
    glean.infer(img=[tmp_path / name for name in ("a.tif", "b.png", "c.jpg")])
    assert [record.getMessage() for record in caplog.records if record.name.startswith("glean_ext")] == [
        f"{tmp_path}/a.tif: the result does not have 1 more page of the file.",
        f"{tmp_path}/c.jpg: the result does not have its metadata.",
    ]


def test_a_slash_names_a_folder(glean, rgb, path, tmp_path):
    for given, name in (rgb, "image.png"), (Image.fromarray(rgb), "image.png"), (path, "in.png"), ([path], "in.png"):
        out = tmp_path / f"run.{name}"
        glean.infer(img=given, result_out_dir=f"{out}/")
        assert left_in(out) == [name]
        (out / name).unlink()
        out.rmdir()


def test_the_limit_of_pixels(glean, path, monkeypatch):
    monkeypatch.setattr(inferencer, "MAX_PIXELS", 10)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert fault(lambda: glean.infer(img=path)) == (
        f"{path} is too large: Image size (64 pixels) exceeds limit of 10 pixels. Crop it or scale it down. Or set "
        "PIL.Image.MAX_IMAGE_PIXELS to a larger number."
    )
    for limit in 64, None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        glean.infer(img=path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    monkeypatch.setattr(inferencer, "MAX_PIXELS", 64)
    glean.infer(img=path)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_bad_images_among_good_ones(glean, restorer, tmp_path, batch_size):
    """The others are written, and the error names what failed; without files to write the first bad one ends it."""
    folder, out = tmp_path / "in", tmp_path / "out"
    for seed, name in enumerate("acd"):
        save(noise(seed), folder / f"{name}.png")
    bad = folder / "b.png"
    bad.write_text("text")
    message = fault(lambda: glean.infer(img=folder, result_out_dir=out, batch_size=batch_size))
    assert message.startswith(f"1 of 4 images failed ({bad}), the first because: {bad} is no image")
    assert message.endswith(f"The others are in {out}.") and left_in(out) == ["a.png", "c.png", "d.png"]
    assert np.abs(read_rgb(out / "d.png").astype(int) - restorer.restore(noise(2))).max() <= 1
    assert fault(lambda: glean.infer(img=folder, batch_size=batch_size)).startswith(f"{bad} is no image")


def test_where_all_fail_there_are_no_others(glean, tmp_path):
    (tmp_path / "b.png").write_text("text")
    message = fault(lambda: glean.infer(img=[tmp_path / "b.png"], result_out_dir=tmp_path / "out"))
    assert message.startswith("1 of 1 images failed") and message.endswith("Save it as PNG.")


# Other models, and the metafile


def test_other_models_are_mmagics(make, mmagic_models, path, tmp_path):
    """SRCNN is made and run by MMagic's own inferencer; lists and tasks have theirs and ours."""
    import mmagic
    from mmagic.apis import MMagicInferencer
    from mmagic.apis.inferencers import Inferencers
    from mmagic.registry import MODELS

    config = Path(mmagic.__file__).parent / ".mim" / "configs" / "srcnn" / "srcnn_x4k915_1xb16-1000k_div2k.py"
    with DefaultScope.overwrite_default_scope("mmagic"):
        torch.save(MODELS.build(Config.fromfile(config).model).state_dict(), tmp_path / "srcnn.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the released weights are not used
        editor = make("srcnn", model_ckpt=str(tmp_path / "srcnn.pth"))
    assert isinstance(editor.inferencer, Inferencers)
    assert editor.infer(img=str(path))[1].shape == (32, 32, 3)
    with pytest.raises(ValueError, match="Model glaen is not supported"):
        make("glaen")
    models = MMagicInferencer.get_inference_supported_models()
    assert {"glean", "lightglean", "esrgan"} <= set(models) and len(models) == len(set(models))
    assert {"glean", "lightglean", "esrgan"} <= set(
        MMagicInferencer.get_task_supported_models("Image Super-Resolution")
    )
    assert editor.get_model_config("lightglean")["settings"][0]["Name"] == "lightglean_x16_ffhq"


@pytest.mark.slow
def test_in_a_fresh_process(path, tmp_path):
    """MMagic's inferencers are imported only when they are asked for, and then have ours."""
    code = (
        "import sys, glean_ext.plugin\n"
        "print('mmagic.apis' in sys.modules)\n"
        "from mmagic.apis import MMagicInferencer\n"
        f"editor = MMagicInferencer('glean', model_config={str(DEMO)!r}, model_ckpt={DEMO_WEIGHTS!r}, device='cpu')\n"
        f"editor.infer(img={str(path)!r}, result_out_dir='restored.png')\n"
        "print(type(editor.inferencer).__module__)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["False", "glean_ext.apis.mmagic_inferencer"]
    expected = ImageRestorer(DEMO, DEMO_WEIGHTS, "cpu").restore(read_rgb(path))
    np.testing.assert_array_equal(read_rgb(tmp_path / "restored.png"), expected)


def test_references(make, tmp_path):
    """A list of files, or one."""
    references.save_network(tmp_path)
    file, rgb = references.save(tmp_path / "r.png", seed=1), noise(0)
    weights = tmp_path / "net.safetensors"
    expected = ImageRestorer(references.CONFIG, weights, "cpu", references=[file]).restore(rgb)
    plain = ImageRestorer(references.CONFIG, weights, "cpu").restore(rgb)
    for given in [str(file)], str(file):
        extra = {"references": given}
        editor = make("glean", model_config=references.CONFIG, model_ckpt=weights, extra_parameters=extra)
        _, image = editor.infer(img=np.ascontiguousarray(rgb[..., ::-1]))
        np.testing.assert_array_equal(image[..., ::-1], expected)
    assert np.abs(plain.astype(int) - expected).max() > 5


@pytest.fixture(scope="module")
def metafile():
    index = yaml.safe_load((inferencer.HOME / "model-index.yml").read_text())
    assert index == {"Import": ["configs/metafile.yml"]}
    return yaml.safe_load((inferencer.HOME / index["Import"][0]).read_text())


def test_metafile_has_every_config(metafile):
    """With the fields that OpenMMLab's tools read, and networks as their collection says."""
    collections = {collection["Name"] for collection in metafile["Collections"]}
    for collection in metafile["Collections"]:
        assert {"Name", "Metadata", "Paper", "README", "Task", "Year"} == set(collection)
        assert {"Title", "URL"} == set(collection["Paper"]) and (ROOT / collection["README"]).is_file()
    listed = [model["Config"] for model in metafile["Models"]]
    assert sorted(listed) == sorted(f"configs/{path.name}" for path in (ROOT / "configs").glob("*.py"))
    others = {"BigGAN bank": "BigGANGenerator", "GLEAN with a diffusion model": "GLEANDiffusion"}
    kinds = dict(inferencer.MODELS.values()) | others
    for model in metafile["Models"]:
        required = {"Name", "In Collection", "Config", "Metadata", "Results"}
        assert required <= set(model) <= required | {"Weights", "Alias"}, model["Name"]
        assert model["In Collection"] in collections and Path(model["Config"]).stem == model["Name"]
        assert model["Metadata"]["Training Data"]
        assert all(set(result) == {"Task", "Dataset", "Metrics"} for result in model["Results"])
        generator = load_config(inferencer.HOME / model["Config"]).model.generator
        assert generator.type == kinds.get(model["In Collection"], "TrainableBank")


def test_settings_are_mmagics_and_more(metafile):
    """MMagic's seven settings keep number, name, weights and PSNR; only published numbers are there."""
    import mmagic

    theirs = yaml.safe_load((Path(mmagic.__file__).parent / ".mim/configs/glean/metafile.yml").read_text())["Models"]
    ours = inferencer.settings("glean")
    assert len(theirs) == 7
    for number, model in enumerate(theirs):
        assert ours[number]["Alias"] == [model["Name"]] and ours[number].get("Weights") == model.get("Weights")
        psnr = model["Results"][0]["Metrics"].get("PSNR")
        assert ours[number]["Results"][0]["Metrics"].get("PSNR") == psnr
        assert inferencer.find_setting("glean", None, model["Name"]) is ours[number]
    numbers = {model["Name"]: model["Results"][0]["Metrics"] for model in metafile["Models"]}
    assert {name: metrics for name, metrics in numbers.items() if metrics} == {
        "glean_x8_cat": {"PSNR": 23.98},
        "glean_x16_cat": {"PSNR": 20.88},
        "glean_x16_ffhq": {"PSNR": 26.91, "LPIPS": 0.27},
        "glean_in128out1024_ffhq": {"PSNR": 27.94},
    }
    assert inferencer.settings("lightglean")[0]["Name"] == "lightglean_x16_ffhq"


def test_colorizers_take_a_seed_and_biggans_a_label(make, tmp_path):
    low = noise(1, 16, 16)[..., :1].repeat(3, 2)
    setting = {"model_setting": "demo_glean_color"}
    results = [make("glean_color", **setting, extra_parameters=extra).infer(img=low)[1] for extra in ({}, {"seed": 1})]
    for seed, result in zip((None, 1), results, strict=True):
        np.testing.assert_array_equal(result[..., ::-1], ImageRestorer("demo_glean_color", seed=seed).restore(low))
    config = {"model": {"generator": {**NET, **sizes(32)}}}
    torch.manual_seed(0)
    torch.save(randomize(build_network(config["model"]["generator"])).state_dict(), tmp_path / "biggan.pth")
    own = {"model_config": config, "model_ckpt": tmp_path / "biggan.pth"}
    results = [
        make("glean_biggan", **own, extra_parameters={"label": label}).infer(img=low[:8, :8])[1] for label in (0, 1)
    ]
    assert not np.array_equal(*results)
    assert fault(lambda: make("glean_biggan", **own, extra_parameters={"label": 7})).startswith(
        "label is 7, which is no"
    )
    unconditional = {"model_config": CONFIG, "model_ckpt": tmp_path / "biggan.pth", "extra_parameters": {"label": 1}}
    assert fault(lambda: make("glean", **unconditional)).startswith(
        "label has no effect: this network has a bank without"
    )
