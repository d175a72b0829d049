"""What ``MMagicInferencer(model_name='glean', ...)`` uses once ``glean_ext.plugin`` is imported; see :data:`MODELS`."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from mmengine import Config
from PIL import Image

from glean_ext.batch.output_plan import names_folder, plan_outputs, result_name
from glean_ext.batch.restore_pictures import restore_pictures
from glean_ext.config import HOME, generator_config, load_config
from glean_ext.errors import InputError
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.utils.file_listing import list_files
from glean_ext.utils.files import expand_home
from glean_ext.utils.image_io import (
    EXTENSIONS,
    MAX_PIXELS,
    ImageTooLargeError,
    Picture,
    pillow_rgb,
    pixel_limit,
    read_picture,
    write_picture,
)
from glean_ext.utils.image_writer import IMAGE_OUTPUTS, output_format
from glean_ext.utils.messages import summarize_names
from glean_ext.utils.outcome import Outcome
from glean_ext.utils.progress import ProgressBar
from glean_ext.video.formats import VIDEOS

if TYPE_CHECKING:  # MMagic takes seconds to load
    from mmagic.structures import DataSample

logger = logging.getLogger(__name__)

Img = str | os.PathLike | np.ndarray | Image.Image

# model_name -> collection of the metafile, type of the network
MODELS = {
    "glean": ("GLEAN", "GLEANStyleGANv2"),
    "lightglean": ("LightGLEAN", "LightGLEANStyleGANv2"),
    "glean_biggan": ("GLEAN with BigGAN", "GLEANBigGAN"),
    "glean_color": ("GLEAN colorization", "GLEANColorization"),
}
TASKS = dict.fromkeys(MODELS, "Image Super-Resolution") | {"glean_color": "Colorization"}  # as MMagic calls them
EXTRA = ("size_policy", "seed", "fidelity", "label", "references")
RGB_ORDER = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}  # channels of an array -> which to take, from BGR and BGRA


@dataclass(frozen=True)
class Item:
    """An image to restore, what messages call it, and the file to write."""

    name: str
    img: Img
    target: Path | None = None


class GLEANInferencer:
    """Restores images by a config and a checkpoint, with the arguments of ``MMagicInferencer``.

    Give ``model_setting`` or ``config_name``, for a config of this package, or ``model_config``.

    Args:
        model_name: A key of :data:`MODELS`.
        model_setting: Which config of ``configs/metafile.yml``: a number, from 0 in each collection, or a name.
        config_name: The name of a config, or MMagic's name of it.
        model_config: A config of your own: a file or what it holds.
        model_ckpt: The weights, a path, URL or ``glean-ext://`` name; default: the released ones of the config.
        device: ``'cpu'``, ``'cuda'``, ...; None takes the GPU when there is one.
        extra_parameters: ``size_policy``, ``seed`` (of colorizers) and ``fidelity`` (of models with the gate), see
            :class:`~glean_ext.inference.image_restorer.ImageRestorer`; ``label``, the class of all images, by number or
            name (of models with a BigGAN bank); ``references``, a list of files and folders (of models that take them).
        seed: Without effect; nothing is random that ``extra_parameters`` do not ask for.

    Raises:
        InputError: Something given cannot be used, or there are no weights.
    """

    def __init__(
        self,
        model_name: str,
        model_setting: int | str | None = None,
        config_name: str | None = None,
        model_config: str | os.PathLike | Mapping | Config | None = None,
        model_ckpt: str | os.PathLike | None = None,
        device: str | torch.device | None = None,
        extra_parameters: Mapping[str, Any] | None = None,
        seed: int = 2022,
    ):
        extra = {"size_policy": "auto", **(extra_parameters or {})}
        if unknown := sorted(set(extra) - set(EXTRA)):
            raise InputError(f"extra_parameters has {', '.join(unknown)}, but it may have {', '.join(EXTRA)}.")
        if model_config is None:
            setting = find_setting(model_name, model_setting, config_name)
            model_config, source = HOME / setting["Config"], setting["Name"]
            model_ckpt = model_ckpt or setting.get("Weights")
        else:
            if model_setting is not None or config_name is not None:
                raise InputError("Give model_config, or one of model_setting and config_name, but not both.")
            source = str(model_config) if isinstance(model_config, str | os.PathLike) else "model_config"
        if not model_ckpt:
            raise InputError(f"{source} has no released weights. Give model_ckpt, the path or URL of a checkpoint.")
        self.cfg = _config(model_config, model_name, source)
        self.restorer = ImageRestorer(
            self.cfg,
            model_ckpt,
            device,
            extra["size_policy"],
            seed=extra.get("seed"),
            fidelity=extra.get("fidelity"),
            references=extra.get("references", ()),
            label=extra.get("label"),
        )

    def get_extra_parameters(self) -> list[str]:
        """The names of ``extra_parameters``."""
        return list(EXTRA)

    def __call__(
        self,
        img: Img | Sequence[Img] | None = None,
        video: None = None,
        label: None = None,
        trimap: None = None,
        mask: None = None,
        result_out_dir: str | os.PathLike = "",
        batch_size: int = 1,
    ) -> tuple[dict[str, DataSample], np.ndarray] | tuple[list[dict[str, DataSample]], list[np.ndarray]]:
        """Restore an image, or a list or folder of images; what ``MMagicInferencer.infer`` calls.

        Arrays are uint8 and **BGR**, as OpenCV has them: what comes in as ndarray, (h, w, 3), (h, w, 4) or (h, w), and
        every (H, W, 3) that comes out. Image files and Pillow's images have their colours in them; a PNG that is
        written has the same pixels as the result, so ``cv2.imread`` of it is equal to the result.

        Args:
            img: The path of an image, an ndarray or an image of Pillow; a list of these; or the path of a folder.
            video, label, trimap, mask: None; other models of MMagic take them.
            result_out_dir: Where results are written: for one image a ``.png``, ``.jpg`` or ``.webp``, or a folder,
                for more a folder of PNG. Names are kept: that of ``a.png``, and ``a.jpg.png`` for ``a.jpg``; what has
                no name is called ``image.png`` or, by its place in the list, ``00000.png``.
            batch_size: As many images are restored together, where they have, or are resized to, the size the network
                was trained with. Others are restored one by one.

        Returns:
            ``({'infer_results': sample}, result)``, or two such lists. ``sample.output.pred_img`` is the result again,
            a tensor (3, H, W), BGR in [0, 255].

        Raises:
            InputError: Something given cannot be used. With ``result_out_dir`` a bad image does not stop the others,
                and the error at the end names those that failed; without, the first one does.
        """
        for key, value in ("video", video), ("label", label), ("trimap", trimap), ("mask", mask):
            if value is not None:
                hint = "Set label in extra_parameters." if key == "label" else "Give img."
                raise InputError(f"{key}: GLEAN restores images and takes none. {hint}")
        if not isinstance(batch_size, int) or batch_size < 1:
            raise InputError(f"batch_size is {batch_size!r}, but it must be a number from 1 on.")
        result_out_dir = expand_home(result_out_dir)
        items, alone = plan(img, result_out_dir)
        results: list[np.ndarray] = []
        failures: dict[str, InputError] = {}
        with ProgressBar(disable=alone) as bar:
            task = bar.add_task("restoring", total=len(items))
            for start in range(0, len(items), batch_size):
                batch = items[start : start + batch_size]
                for item, outcome in zip(batch, self._restore(batch), strict=True):
                    try:
                        results.append(_finish(outcome.unwrap(), item.target))
                    except InputError as error:
                        if alone or not result_out_dir:
                            raise
                        failures[item.name] = error
                bar.advance(task, len(batch))
        if failures:
            others = f" The others are in {result_out_dir}." if results else ""
            raise InputError(
                f"{len(failures)} of {len(items)} images failed ({summarize_names(list(failures))}), "
                f"the first because: {next(iter(failures.values()))}{others}"
            )
        samples = [_sample(item, result) for item, result in zip(items, results, strict=True)]
        return (samples[0], results[0]) if alone else (samples, results)

    def _restore(self, batch: Sequence[Item]) -> list[Outcome[np.ndarray]]:
        """For each image its result, (H, W, 3) RGB, or why there is none."""
        read = [
            Outcome.of(lambda item=item: Picture(to_rgb(item.img, item.name)))  # type: ignore[misc]
            for item in batch
        ]
        readable = [
            (outcome.unwrap(), item.name) for item, outcome in zip(batch, read, strict=True) if not outcome.error
        ]
        pictures, names = [picture for picture, _ in readable], [name for _, name in readable]
        restored = iter(restore_pictures(self.restorer, pictures, names))
        return [outcome.then(lambda _: next(restored).unwrap().pixels) for outcome in read]


@cache
def settings(model_name: str) -> list[dict[str, Any]]:
    """The configs of a model by the metafile, in the order that ``model_setting`` counts.

    Raises:
        InputError: This package is installed without its metafile.
    """
    path = HOME / "configs" / "metafile.yml"
    try:
        models = yaml.safe_load(path.read_text())["Models"]
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}). Install glean-ext again, or give model_config."
        ) from error
    return [model for model in models if model["In Collection"] == MODELS[model_name][0]]


def find_setting(model_name: str, model_setting: int | str | None, config_name: str | None) -> dict[str, Any]:
    """The entry of the metafile that is meant; without number and name the first.

    Raises:
        InputError: There is no such entry.
    """
    known = settings(model_name)
    names = [setting["Name"] for setting in known]
    if model_setting is not None and config_name is not None:
        raise InputError("Give one of model_setting and config_name, but not both.")
    key, wanted = ("config_name", config_name) if config_name is not None else ("model_setting", model_setting or 0)
    if isinstance(wanted, int) and 0 <= wanted < len(known):
        return known[wanted]
    for setting in known:
        if wanted in (setting["Name"], *setting.get("Alias", ())):
            return setting
    raise InputError(
        f"{key} is {wanted!r}, but {model_name!r} has 0 to {len(known) - 1}: {', '.join(names)}. Give one of these, "
        "or a config of your own as model_config."
    )


def _config(given: str | os.PathLike | Mapping | Config, model_name: str, source: str) -> Mapping:
    """A config as a dict, whose network is the one that ``model_name`` says."""
    if isinstance(given, str | os.PathLike):
        given = load_config(given)
    elif not isinstance(given, Config | Mapping):
        raise InputError(f"model_config is a {type(given).__name__}, but it must be the path of a config, or a config.")
    config = given.to_dict() if isinstance(given, Config) else given
    kind, other = generator_config(config, source)["type"], {kind: name for name, (_, kind) in MODELS.items()}
    if other.get(kind, model_name) != model_name:
        raise InputError(f"{source} is of a {kind}. Give model_name={other[kind]!r}, or another config.")
    return config


def to_rgb(img: Img, name: str) -> np.ndarray:
    """Any input as (h, w, 3) uint8 RGB, as a viewer shows it: see :func:`~glean_ext.utils.image_io.read_rgb`.

    A warning names what a file holds besides.

    Raises:
        InputError: It cannot be read, or is of another type, dtype or shape.
    """
    if isinstance(img, Image.Image):
        return pillow_rgb(img, name)
    if isinstance(img, str | os.PathLike):
        picture = _read(img)
        if lost := picture.lost_when_flattened:
            logger.warning("%s: the result does not have %s.", name, " and ".join(lost))
        return picture.flattened
    if not isinstance(img, np.ndarray):
        raise _wrong_type(img, name)
    channels = 1 if img.ndim == 2 else img.shape[2] if img.ndim == 3 else 0
    if img.dtype != np.uint8 or channels not in RGB_ORDER or not img.size:
        raise InputError(
            f"{name} is an array of shape {img.shape} and dtype {img.dtype}, but it must be (h, w, 3) uint8, BGR, as "
            "cv2.imread returns it; (h, w, 4) and (h, w) are taken too."
        )
    pixels = img.reshape(*img.shape[:2], channels)[..., RGB_ORDER[channels]]
    return pillow_rgb(Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels), name)


def _read(path: str | os.PathLike) -> Picture:
    """An image of up to :data:`MAX_PIXELS`, or of as many as Pillow's own limit allows if that is higher."""
    limit = Image.MAX_IMAGE_PIXELS
    try:
        with nullcontext() if limit is None else pixel_limit(max(limit, MAX_PIXELS)):
            return read_picture(path)
    except ImageTooLargeError as error:
        raise InputError(f"{error.message} Or set PIL.Image.MAX_IMAGE_PIXELS to a larger number.") from error


def _wrong_type(img: object, name: str) -> InputError:
    kind = type(img).__name__
    return InputError(
        f"{name} is a {kind}, but it must be a path, an ndarray or an image of Pillow, or a list of these."
    )


def plan(img: Img | Sequence[Img] | None, out: str | os.PathLike) -> tuple[list[Item], bool]:
    """What is restored and written, and whether that is one image by itself.

    Raises:
        InputError: There is nothing to restore, or an input or another output would be overwritten.
    """
    if img is None or (isinstance(img, str) and not img):  # which would be the folder at hand
        raise InputError("img is missing. Give the path of an image or a folder, an ndarray, or a list.")
    if isinstance(img, list | tuple):
        return _plan_list(img, out), False
    if isinstance(img, np.ndarray | Image.Image):
        target = Path(out) / "image.png" if names_folder(out) else Path(out)
        if out:
            output_format(target)
        return [Item("img", img, target if out else None)], True
    if not isinstance(img, str | os.PathLike):
        raise _wrong_type(img, "img")
    source = Path(expand_home(img))
    if source.suffix.lower() in VIDEOS and source.is_file():
        raise InputError(f"{source} is a video, and img takes images. Restore it with glean-restore.")
    if source.is_dir():
        listing = list_files(source, EXTENSIONS, recursive=False, skip=out or None)  # without videos
        images = listing.files
        if not images:
            raise InputError(f"{source} has no images ({' '.join(EXTENSIONS)}). Give a folder of images.")
        if line := listing.describe_left_out(source, EXTENSIONS):
            logger.warning(line)
    if out:
        planned = plan_outputs([source], out, recursive=False)
        jobs = [job for job in planned.jobs if not job.is_video]
        return [Item(str(job.source), job.source, job.target) for job in jobs], planned.alone
    if source.is_dir():
        return [Item(str(path), path) for path in images], False
    return [Item(str(source), source)], True


def _plan_list(images: Sequence[Img], folder: str | os.PathLike) -> list[Item]:
    if not images:
        raise InputError("img is an empty list. Give at least one image.")
    out = Path(folder) if folder else None
    if out and (out.is_file() or (out.suffix.lower() in IMAGE_OUTPUTS and not names_folder(folder))):
        raise InputError(f"result_out_dir is {out}, but for a list of images it must be a folder.")
    items = []
    sources: dict[Path, str] = {}
    for index, img in enumerate(images):
        path = Path(expand_home(img)) if isinstance(img, str | os.PathLike) else None
        name = str(path or f"img[{index}]")
        target = out / result_name(path or Path(f"{index:05d}.png")) if out else None
        if target and target in sources:
            raise InputError(f"{sources[target]} and {name} would both be written to {target}. Rename one of them.")
        if target and path and path.exists() and target.exists() and target.samefile(path):
            raise InputError(f"{target} is an input and would be overwritten. Give another result_out_dir.")
        if target:
            sources[target] = name
        items.append(Item(name, path or img, target))
    return items


def _finish(result: np.ndarray, target: Path | None) -> np.ndarray:
    """Write a result, and give it in BGR."""
    if target:
        write_picture(Picture(result), target)
    return np.ascontiguousarray(result[..., ::-1])


def _sample(item: Item, result: np.ndarray) -> dict[str, DataSample]:
    from mmagic.structures import DataSample

    output = DataSample(pred_img=torch.from_numpy(result).permute(2, 0, 1))  # (3, H, W)
    return {"infer_results": DataSample(metainfo={"img_path": item.name}, output=output)}
