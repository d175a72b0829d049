"""Pairs of images from tar shards, on a disk or behind URLs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from mmengine.dist import get_dist_info

from glean_ext.datasets.shard_labels import ending_of, shard_labels
from glean_ext.datasets.sr_dataset import SRDataset
from glean_ext.errors import InputError
from glean_ext.utils.image_io import EXTENSIONS
from glean_ext.utils.messages import summarize_names
from glean_ext.utils.tar_shards import Contents, Member, group_samples, list_shards, read_contents

IMAGES = ";".join(extension.removeprefix(".") for extension in EXTENSIONS)
KEYS = ("gt", "img")

logger = logging.getLogger(__name__)


class SRShardDataset(SRDataset):
    """Ground-truth images in tar files, in the layout of webdataset; low-resolution ones are made, or are there, too.

    Nothing is unpacked or copied as a whole: each image is read, with its own bytes alone, when it is its turn. So any
    order costs the same, and with :class:`~glean_ext.datasets.ResumableSampler` samples are those of a folder with the
    same images: shuffled over all shards, split over processes, the same after an interruption.

    Args:
        shards: Paths or URLs of tar files, not compressed, see :func:`~glean_ext.utils.tar_shards.list_shards`:
            ``'s3://bucket/faces-{000..099}.tar'``, or several such.
        scale: The factor by which the low-resolution images are smaller, 16 for 1024 -> 64.
        pipeline: Transforms; :class:`LoadRGB` and :class:`LoadOrMakeLQ` load or make the images.
        members: What the images of a sample are called after the first dot of their name, with ``;`` between
            alternatives: ``dict(gt='gt.png;gt.jpg', img='lq.png')``. None: one image of any format, the ground truth.
        metainfo: As in mmengine.
        test_mode: As in mmengine.
        unreadable: What a damaged image, or the damaged rest of a shard, does to training: as in
            :class:`SRFolderDataset`.
        labels: What the file with the class of an image is called after the first dot of their name, such as ``'cls'``,
            see :func:`~glean_ext.datasets.shard_labels.shard_labels`; the samples then have it as ``gt_label``. Empty:
            images have no classes.
        classes: As in :class:`SRFolderDataset`.

    Raises:
        InputError: A shard is missing or damaged, there are no images, a pair is not complete, an image has no class or
            none that can be used, or ``members``, ``scale``, ``unreadable``, ``labels`` or ``classes`` has a wrong
            value.
    """

    def __init__(
        self,
        shards: str | Sequence[str],
        scale: int,
        pipeline: list[dict | Callable],
        members: Mapping[str, str] | None = None,
        metainfo: dict | None = None,
        test_mode: bool = False,
        unreadable: str = "stop",
        labels: str = "",
        classes: Sequence[str] | int | None = None,
    ):
        self.check(scale, unreadable)
        if classes is not None and not labels:
            raise InputError("SRShardDataset.classes goes with labels: say where the class of an image is known from.")
        self.members = {"gt": IMAGES} if members is None else dict(members)
        if "gt" not in self.members or set(self.members) - set(KEYS):
            raise InputError(
                f"SRShardDataset.members is {self.members}, but it must be dict(gt='<ending>') or dict(gt='<ending>', "
                "img='<ending>')."
            )
        self.shards, self.scale = shards, scale
        self.labels, self.classes = labels, classes
        self.skips = unreadable == "skip" and not test_mode
        super().__init__(
            metainfo=metainfo, data_root="", data_prefix={}, search_key="gt", pipeline=pipeline, test_mode=test_mode
        )

    def load_data_list(self) -> list[dict]:
        paths = list_shards(self.shards)
        contents = read_contents(paths)
        for item in contents:
            self._refuse_or_warn(item)
        samples: list[dict] = []
        left_out: list[str] = []
        labels: dict[Member, Member | None] = {}  # of the images
        for path, item in zip(paths, contents, strict=True):
            for name, files in group_samples(item.members):
                found = {key: self._find(files, key) for key in self.members}
                if found["gt"] is None:
                    left_out.append(f"{path}/{name}.{next(iter(files))}")
                else:
                    samples.append(self._sample(name, found))
                    labels[found["gt"]] = files.get(ending_of(self.labels))
        if not samples:
            first = f"; there is {left_out[0]}" if left_out else ""
            wanted = self.members["gt"]
            raise InputError(
                f"{summarize_names(paths, 1)}: no sample has {wanted}{first}. Correct shards, or set members."
            )
        links = [f"{path}/{name}" for path, item in zip(paths, contents, strict=True) for name in item.links]
        rest = ""
        for names, what in (left_out, "without one"), (links, "links to other files"):
            if names:
                rest += f", {len(names)} {what} are left out: {summarize_names(names, 1)}"
        if self.labels:
            numbers = shard_labels(labels, self.labels, self.classes)
            others = [str(image) for image in labels if image not in numbers]
            rest += f", {len(others)} of other classes are left out: {summarize_names(others, 1)}" if others else ""
            samples = [
                sample | {"gt_label": numbers[image]} for sample in samples if (image := sample["gt_member"]) in numbers
            ]
        self._log(f"{len(paths)} shards: {len(samples)} samples with an image{rest}.", warning=bool(rest))
        return samples

    def _refuse_or_warn(self, contents: Contents) -> None:
        if not contents.damage:
            return
        if not self.skips:
            raise InputError(f"{contents.damage} Copy it again, or set unreadable='skip' to use what is before.")
        self._log(f"{contents.damage} The {len(contents.members)} files before are used.", warning=True)

    def _log(self, message: str, warning: bool) -> None:
        if get_dist_info()[0] == 0:
            logger.log(logging.WARNING if warning else logging.INFO, "%s", message)

    def _find(self, files: Mapping[str, Member], key: str) -> Member | None:
        return next((files[ending] for ending in self.members[key].lower().split(";") if ending in files), None)

    def _sample(self, name: str, found: Mapping[str, Member | None]) -> dict:
        sample: dict = {"key": name, "scale": self.scale}
        for key, member in found.items():
            if member is None:
                raise InputError(f"{found['gt']} has no {self.members[key]}. Add it, or leave members.{key} out.")
            sample[f"{key}_path"], sample[f"{key}_member"] = str(member), member
        return sample
