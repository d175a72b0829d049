"""tools/infer.py with a tiny network: what it writes, and that each mistake is reported in one line."""

import gc
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.networks import TINY
from support.tools import load_tool, only_error, run_main

from glean_ext.config import load_config
from glean_ext.errors import InputError, Notice
from glean_ext.inference.backend import NetworkOptions, load_backend
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.inference.torch_backend import pick_device
from glean_ext.networks import build_network
from glean_ext.utils.array_conversion import to_tensor, to_uint8
from glean_ext.utils.image_io import read_rgb
from glean_ext.utils.imresize import imresize

TOOL = Path(__file__).parents[2] / "tools" / "infer.py"


@pytest.fixture(scope="session")
def net():
    torch.manual_seed(0)
    return build_network(TINY).eval()


@pytest.fixture(scope="session")
def weights(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save(net.state_dict(), path)
    return path


def write_config(path, **changes):
    lines = [f"generator = dict(**{TINY | changes})", "model = dict(type='GLEAN', generator=generator)"]
    path.write_text("\n".join(["custom_imports = dict(imports=['glean_ext.plugin'])", *lines]) + "\n")
    return path


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path / "tiny.py")


@pytest.fixture
def image(tmp_path):
    return save_noise(tmp_path / "in.png")


def save_noise(path, height=8, width=8):
    path.parent.mkdir(exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.fixture(scope="session")
def tool():
    return load_tool("infer")


@pytest.fixture
def infer(tool, capsys):
    """Run the tool in this process, on the CPU: (exit code, stdout, stderr)."""
    return lambda *arguments: run_main(tool.main, capsys, *arguments, "--device", "cpu", "--dtype", "float32")


@pytest.fixture
def fault(infer):
    """Run the tool, expect exit code 2 and one line on stderr; the line."""
    return lambda *arguments: only_error(*infer(*arguments))


def expected(net, rgb):
    with torch.inference_mode():
        return to_uint8(net(to_tensor(rgb)))


# What is written


def test_a_file_is_restored_by_the_network(infer, net, weights, config, image, tmp_path):
    code, stdout, stderr = infer(config, weights, image, "-o", tmp_path / "out.png")
    assert (code, stdout, stderr) == (0, f"Restored: {tmp_path}/out.png (16 × 16)\n", "")
    restored = read_rgb(tmp_path / "out.png")
    assert restored.shape == (16, 16, 3) and restored.std() > 1
    np.testing.assert_array_equal(restored, expected(net, read_rgb(image)))


def test_output_may_be_a_folder_for_a_file(infer, weights, config, image, tmp_path):
    assert infer(config, weights, image, "-o", tmp_path / "out" / "deep")[0] == 0
    assert (tmp_path / "out" / "deep" / "in.png").is_file()


def test_where_all_fail_there_are_no_others(infer, weights, config, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "bad.png").write_text("text")
    code, _, stderr = infer(config, weights, folder, "-o", tmp_path / "out")
    assert code == 2
    assert stderr == f"error: 1 of 1 images in {folder} failed (bad.png); why is said above.\n"


def test_a_folder_goes_on_after_bad_files_and_tells_all(infer, net, weights, config, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    good = [save_noise(folder / "a.png"), save_noise(folder / "d.bmp")]
    (folder / "b.png").write_text("text")
    (folder / "c.png").touch()
    (folder / "notes.txt").touch()
    code, stdout, stderr = infer(config, weights, folder, "-o", out)
    assert code == 2
    assert stderr == (
        f"error: 2 of 4 images in {folder} failed (b.png, c.png); why is said above. The others are in {out}.\n"
    )
    assert "left out, no images: notes.txt\n" in stdout
    assert f"failed: {folder}/b.png is no image" in stdout
    assert f"failed: {folder}/c.png is empty (0 bytes). Get the file again.\n" in stdout
    assert sorted(p.name for p in out.iterdir()) == ["a.png", "d.bmp.png"]
    np.testing.assert_array_equal(read_rgb(out / "d.bmp.png"), expected(net, read_rgb(good[1])))


def test_a_good_folder_ends_with_0(infer, weights, config, tmp_path):
    save_noise(tmp_path / "in" / "a.png")
    code, _, stderr = infer(config, weights, tmp_path / "in", "-o", tmp_path / "out")
    assert (code, stderr) == (0, "")


def test_images_that_differ_in_extension(infer, weights, config, tmp_path):
    for name in ("a.png", "a.bmp", "b.png"):
        save_noise(tmp_path / "in" / name)
    assert infer(config, weights, tmp_path / "in", "-o", tmp_path / "out")[0] == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.bmp.png", "a.png", "b.png"]


@pytest.mark.parametrize("mode", ["I;16", "L", "1", "RGBA", "LA", "P", "CMYK"])
def test_any_kind_of_pixels(infer, weights, config, tmp_path, mode):
    path = tmp_path / "in.tif"
    gray = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    kind = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8)) if mode == "I;16" else gray.convert(mode)
    assert kind.mode == mode
    kind.save(path)
    assert infer(config, weights, path, "-o", tmp_path / "out.png")[0] == 0
    assert read_rgb(tmp_path / "out.png").shape == (16, 16, 3)


def test_exif_orientation_turns_the_output(infer, weights, config, tmp_path):
    path = save_noise(tmp_path / "in.png", height=8, width=4)
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as upright:
        upright.save(path, exif=exif)
    assert infer(config, weights, path, "-o", tmp_path / "out.png")[0] == 0
    assert read_rgb(tmp_path / "out.png").shape == (8, 16, 3)


# Other sizes


@pytest.mark.parametrize(
    ("size", "out_size"), [((1, 7), (2, 16)), ((20, 10), (16, 8)), ((10, 20), (8, 16)), ((3, 200), (1, 16))]
)
def test_policy_resize_keeps_the_aspect(infer, weights, config, tmp_path, size, out_size):
    path = save_noise(tmp_path / "in.png", *size)
    code, stdout, _ = infer(config, weights, path, "-o", tmp_path / "out.png")
    assert code == 0
    assert stdout == (
        f"{path} has {size[1]}x{size[0]} pixels; it was padded and resized to the model's 8x8. See --size-policy and "
        f"--fit.\nRestored: {tmp_path}/out.png ({out_size[1]} × {out_size[0]})\n"
    )
    assert read_rgb(tmp_path / "out.png").shape == (*out_size, 3)


@pytest.mark.parametrize("size", [(20, 20), (21, 10), (10, 21)])
def test_policy_resize_pads_to_a_square_resizes_as_matlab_and_crops(weights, size):
    rgb = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    side = max(size)
    top, left = (side - size[0]) // 2, (side - size[1]) // 2
    square = np.pad(rgb, ((top, side - size[0] - top), (left, side - size[1] - left), (0, 0)), mode="edge")
    output = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)  # each pixel tells where it was
    given: list[np.ndarray] = []
    notices: list[Notice] = []
    backend = load_backend({"model": {"generator": TINY}}, weights, NetworkOptions(device="cpu"))
    backend.restore = lambda images: given.extend(images) or [output]
    restorer = ImageRestorer(backend, notify=notices.append)
    restored = restorer.restore(rgb)
    difference = np.abs(given[0].astype(int) - imresize(square, size=(8, 8)))
    # MATLAB rounds and clips between the axes and takes rows first; of a landscape image the columns were first.
    assert difference.max() <= (3 if size[1] > size[0] else 0) and (difference > 0).mean() < 0.3
    y, x, height, width = (round(16 * length / side) for length in (top, left, *size))
    np.testing.assert_array_equal(restored, output[y : y + height, x : x + width])
    assert len(given) == len(notices) == 1


def test_policy_error(fault, weights, config, tmp_path):
    path = save_noise(tmp_path / "in.png", 6, 5)
    assert fault(config, weights, path, "-o", tmp_path / "out.png", "--size-policy", "error") == (
        f"{path} has 5x6 pixels, but the model takes 8x8 only. Resize it (MATLAB's antialiased bicubic is what models "
        "are trained with). --size-policy resize does that."
    )
    assert not (tmp_path / "out.png").exists()


# Any size


@pytest.fixture
def light(tmp_path):
    """Config and weights of a small LightGLEAN, 8x8 -> 16x16."""
    torch.manual_seed(0)
    kind = {"type": "LightGLEANStyleGANv2"}
    torch.save(build_network(TINY | kind).state_dict(), tmp_path / "light.pth")
    return write_config(tmp_path / "light.py", **kind), tmp_path / "light.pth"


def test_lightglean_takes_images_as_they_come(infer, light, tmp_path):
    save_noise(tmp_path / "in" / "a.png", 9, 30)
    save_noise(tmp_path / "in" / "b.png", 40, 8)
    code, stdout, _ = infer(*light, tmp_path / "in", "-o", tmp_path / "out")
    assert code == 0 and "pixels" not in stdout
    assert read_rgb(tmp_path / "out" / "a.png").shape == (18, 60, 3)
    assert read_rgb(tmp_path / "out" / "b.png").shape == (80, 16, 3)


def test_tiles_by_hand_give_nearly_the_same(infer, light, tmp_path):
    image = save_noise(tmp_path / "a.png", 60, 50)
    assert infer(*light, image, "-o", tmp_path / "whole.png")[0] == 0
    options = "--size-policy", "tile", "--tile-size", 40, "--tile-overlap", 20
    assert infer(*light, image, "-o", tmp_path / "tiles.png", *options)[0::2] == (0, "")
    whole, tiles = (read_rgb(tmp_path / name).astype(int) for name in ("whole.png", "tiles.png"))
    assert whole.shape == (120, 100, 3) and whole.std() > 1 and np.abs(whole - tiles).max() <= 1


def test_lightglean_names_what_is_too_small_and_goes_on(infer, light, tmp_path):
    save_noise(tmp_path / "in" / "a.png", 7, 9)
    save_noise(tmp_path / "in" / "b.png", 8, 9)
    code, stdout, _ = infer(*light, tmp_path / "in", "-o", tmp_path / "out")
    assert code == 2
    assert (
        f"failed: {tmp_path}/in/a.png has 9x7 pixels, but the model takes any size from 8x8 on. Resize it (MATLAB's "
        "antialiased bicubic is what models are trained with). --size-policy resize does that.\n"
    ) in stdout
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.png"]
    assert infer(*light, tmp_path / "in" / "a.png", "-o", tmp_path / "a.png", "--size-policy", "resize")[0] == 0


def test_glean_in_tiles_and_cropped(infer, weights, config, tmp_path):
    image = save_noise(tmp_path / "a.png", 20, 11)
    assert infer(config, weights, image, "-o", tmp_path / "o.png", "--size-policy", "tile")[0::2] == (0, "")
    assert read_rgb(tmp_path / "o.png").shape == (40, 22, 3)
    code, stdout, _ = infer(config, weights, image, "-o", tmp_path / "o.png", "--fit", "crop", "--overwrite")
    assert code == 0 and "it was cropped and resized to the model's 8x8" in stdout
    assert read_rgb(tmp_path / "o.png").shape == (16, 16, 3)


def test_options_without_effect(fault, weights, config, image, tmp_path):
    assert fault(config, weights, image, "-o", tmp_path / "o.png", "--tile-size", "64") == (
        "--tile-size has no effect with --size-policy resize. Leave it out, or give --size-policy tile."
    )


# Wrong usage


def test_bad_usage_is_one_line(fault, config, weights, image):
    message = fault(config, weights, image)
    assert re.fullmatch(r"the following arguments are required: -o/--output\. See \S+ --help\.", message)


def test_unknown_policy(fault, config, weights, image, tmp_path):
    assert fault(config, weights, image, "-o", tmp_path / "o.png", "--size-policy", "crop") == (
        "--size-policy is 'crop', but it must be one of auto, error, resize, tile."
    )


def test_unusable_device():
    for name in ("tpu9", "cuda:99", "meta"):
        with pytest.raises(InputError, match=rf"^device='{name}' cannot be used here \(.*\)\. Use device='cpu'\.$"):
            pick_device(name)


def test_output_of_the_wrong_kind(fault, config, weights, image, tmp_path):
    assert fault(config, weights, image, "-o", tmp_path / "o.tif") == (
        f"{tmp_path}/o.tif: images are written as .png, .jpg, .jpeg, .webp. Name it {tmp_path}/o.png."
    )
    assert fault(config, weights, tmp_path, "-o", tmp_path / "o.png") == (
        f"{tmp_path}/o.png is a file, but {tmp_path} is a folder. Give a folder as output."
    )


def test_inputs_are_never_overwritten(fault, config, weights, image, tmp_path):
    before = image.read_bytes()
    for output in (image, tmp_path):
        assert fault(config, weights, image, "-o", output) == (
            f"{image} is the input and would be overwritten. Give another output."
        )
    assert fault(config, weights, tmp_path, "-o", tmp_path) == (
        f"{tmp_path} is the input folder. Give another folder as output."
    )
    assert image.read_bytes() == before


def test_missing_files(fault, config, weights, image, tmp_path):
    no, out = tmp_path / "no", tmp_path / "o.png"
    assert fault(no, weights, image, "-o", out) == f"{no}: there is no such file. Give the path of a config."
    assert fault(config, no, image, "-o", out) == f"{no}: there is no such file. Give the path or URL of a checkpoint."
    assert fault(config, weights, no, "-o", out) == (
        f"{no}: there is no such file or folder. Give an image or a folder of images."
    )


def test_folder_without_images(fault, config, weights, tmp_path):
    (tmp_path / "empty").mkdir()
    message = fault(config, weights, tmp_path / "empty", "-o", tmp_path / "out")
    assert message.startswith(f"{tmp_path}/empty has no images (")


# Bad configs


def test_misspelt_argument(fault, weights, image, tmp_path):
    config = write_config(tmp_path / "typo.py", num_rrdb=2)
    message = fault(config, weights, image, "-o", tmp_path / "o.png")
    assert message.startswith("model.generator (GLEANStyleGANv2): ")
    assert "there is no argument 'num_rrdb'. Did you mean num_rrdbs?" in message


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # mmengine's, of a config that fails
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = dict(\n", "FILE cannot be read: SyntaxError: '(' was never closed (<unknown>, line 1). Correct it."),
        ("x = 1 / 0\n", "FILE cannot be read: ZeroDivisionError: division by zero. Correct it."),
        ("_base_ = ['no.py']\n", "FILE: a file that it names is missing (FOLDER/no.py). Correct its _base_."),
        (
            "model = dict(type='GLEAN')\n",
            "FILE has no model.generator = dict(type='GLEANStyleGANv2', ...). Add it, or take another config.",
        ),
        (
            "model = dict(generator=dict(type='EDVRNet'))\n",
            "model.generator.type is 'EDVRNet', but it must be one of",
        ),
    ],
)
def test_bad_config(fault, weights, image, tmp_path, text, message):
    config = tmp_path / "bad.py"
    config.write_text(text)
    expected = message.replace("FILE", str(config)).replace("FOLDER", str(tmp_path))
    assert fault(config, weights, image, "-o", tmp_path / "o.png").startswith(expected)
    gc.collect()  # closes that file while the warning is ignored


def test_cfg_options_change_the_network(fault, config, weights, image, tmp_path):
    options = "--cfg-options", "model.generator.rrdb_channels=4"
    assert "have another shape" in fault(config, weights, image, "-o", tmp_path / "o.png", *options)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("model.generator", "cfg_options model.generator: it must be key=value, e.g. model.generator.in_size=64."),
        ("modell.x=1", "cfg_options modell.x=1: the config has no 'modell'. Correct the key."),
        ("model.generator.blur_kernel=[1,2", "cfg_options model.generator.blur_kernel=[1,2: "),
        ("model.type.x=1", "cfg_options model.type.x=1: "),
    ],
)
def test_bad_cfg_options(config, option, message):
    with pytest.raises(InputError) as caught:
        load_config(config, [option])
    assert str(caught.value).startswith(message)


def test_cfg_options_are_parsed_and_merged(config):
    loaded = load_config(config, ["model.generator.in_size=4", "model.generator.blur_kernel=[1,2]", "resume=True"])
    assert loaded.model.generator.in_size == 4 and loaded.model.generator.out_size == 16
    assert loaded.model.generator.blur_kernel == [1, 2] and loaded.resume is True


# Checkpoints


def test_training_checkpoint(infer, net, config, image, tmp_path):
    state = {f"generator.{k}": v for k, v in net.state_dict().items()} | {"discriminator.x": torch.zeros(1)}
    torch.save({"state_dict": state, "meta": {"iter": 3}}, tmp_path / "iter_3.pth")
    assert infer(config, tmp_path / "iter_3.pth", image, "-o", tmp_path / "o.png")[0] == 0
    np.testing.assert_array_equal(read_rgb(tmp_path / "o.png"), expected(net, read_rgb(image)))


def test_checkpoint_of_mmagics_class(tmp_path):
    """Saved by MMagic's own network, restored by ours: the same image."""
    from glean_ext import compat

    compat.apply()
    from mmagic.models.editors.glean.glean_styleganv2 import GLEANStyleGANv2

    torch.manual_seed(1)
    arguments = {k: v for k, v in TINY.items() if k not in ("type", "max_channels")} | {"channel_multiplier": 1}
    theirs = GLEANStyleGANv2(**arguments).eval()
    torch.save(theirs.state_dict(), tmp_path / "mmagic.pth")
    config = write_config(tmp_path / "config.py", max_channels=512, channel_multiplier=1)
    rgb = np.random.default_rng(3).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    restored = ImageRestorer(config, tmp_path / "mmagic.pth", device="cpu").restore(rgb)
    assert np.abs(restored.astype(int) - expected(theirs, rgb)).max() <= 1  # rounding


def test_checkpoint_of_another_network(fault, config, image, tmp_path):
    import torchvision

    path = tmp_path / "resnet.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    message = fault(config, path, image, "-o", tmp_path / "o.png")
    assert message.startswith(f"{path} does not fit GLEANStyleGANv2: ") and "keys are missing (" in message


def test_checkpoint_of_another_width(fault, config, image, tmp_path):
    path = tmp_path / "wide.pth"
    torch.save(build_network(TINY | {"rrdb_channels": 12}).state_dict(), path)
    message = fault(config, path, image, "-o", tmp_path / "o.png")
    assert message.startswith(f"{path} does not fit GLEANStyleGANv2: ")
    assert "have another shape (" in message and "(12, " in message and "The sizes in the config" in message


def test_truncated_checkpoint(fault, config, weights, image, tmp_path):
    path = tmp_path / "cut.pth"
    for part in (0.0, 0.1, 0.5, 0.99):
        content = weights.read_bytes()
        path.write_bytes(content[: int(part * len(content))])
        message = fault(config, path, image, "-o", tmp_path / "o.png")
        assert message.startswith(f"{path} is ") and "checkpoint" in message


class Malice:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, 2))])
def test_code_in_a_checkpoint_is_refused_and_not_run(fault, config, image, tmp_path, write):
    path = tmp_path / "evil.pth"
    write({"state_dict": Malice(f"touch {tmp_path}/was_run")}, path)
    message = fault(config, path, image, "-o", tmp_path / "o.png")
    assert not (tmp_path / "was_run").exists()
    assert message.startswith(f"{path} holds Python objects besides weights, and reading them could run code")


def test_output_that_is_not_finite(net, image, tmp_path):
    state = {k: torch.full_like(v, torch.nan) for k, v in net.state_dict().items()}
    torch.save(state, tmp_path / "nan.pth")
    restorer = ImageRestorer({"model": {"generator": TINY}}, tmp_path / "nan.pth", device="cpu")
    with pytest.raises(InputError, match=r"in\.png: the network's output is not finite\."):
        restorer.restore(read_rgb(image), "in.png")


# Bad images


@pytest.mark.parametrize("content", [b"", b"text named png", b"\x89PNG\r\n\x1a\n"])
def test_bad_image(fault, config, weights, tmp_path, content):
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    assert fault(config, weights, path, "-o", tmp_path / "o.png").startswith(f"{path} is ")
    assert not (tmp_path / "o.png").exists()


def test_truncated_image(fault, config, weights, image, tmp_path):
    image.write_bytes(image.read_bytes()[:-60])
    message = fault(config, weights, image, "-o", tmp_path / "o.png")
    assert message.startswith(f"{image} is truncated or damaged (") and message.endswith("Get the file again.")


# The real thing


def test_process(config, weights, image, tmp_path):
    """The real tool; MMagic is never imported, and --help imports nothing heavy."""
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, sys\n"
        "heavy = 'torch', 'numpy', 'PIL', 'mmengine', 'rich', 'mmagic'\n"
        "atexit.register(lambda: print('IMPORTED', *(name for name in heavy if name in sys.modules)))\n"
    )
    root = str(TOOL.parents[1])
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), root])}

    def call(*arguments):
        return subprocess.run([sys.executable, TOOL, *arguments], env=env, cwd=tmp_path, capture_output=True, text=True)

    usage = call("--help")
    assert usage.returncode == 0 and usage.stdout.startswith("usage: ") and usage.stdout.endswith("IMPORTED\n")
    done = call(config, weights, image, "-o", "out.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Restored: out.png (16 × 16)\nIMPORTED torch numpy PIL mmengine rich\n"
    assert read_rgb(tmp_path / "out.png").shape == (16, 16, 3)
    bad = call(config, "no.pth", image)
    assert bad.returncode == 2
    assert bad.stderr == "error: the following arguments are required: -o/--output. See infer.py --help.\n"
