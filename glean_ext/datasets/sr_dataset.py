"""What data sets of pairs have in common, wherever their images are."""

from __future__ import annotations

from mmagic.datasets import BasicImageDataset

from glean_ext.datasets.resumable_sampler import seeded
from glean_ext.errors import InputError, UnreadableImageError
from glean_ext.utils.image_io import ImageTooLargeError

MAX_SKIPPED = 20  # damaged files in a row, after which training stops


class SRDataset(BasicImageDataset):
    """Pairs whose random transforms can be seeded, and of which damaged ones can be skipped.

    Attributes:
        skips: Another image takes the place of a damaged one.
    """

    skips: bool

    @classmethod
    def check(cls, scale: object, unreadable: object) -> None:
        """Refuse wrong values of what all data sets have.

        Raises:
            InputError: ``scale`` or ``unreadable`` has one.
        """
        if unreadable not in ("stop", "skip"):
            raise InputError(f"{cls.__name__}.unreadable is {unreadable!r}, but it must be 'stop' or 'skip'.")
        if not isinstance(scale, int) or scale < 1:
            raise InputError(f"{cls.__name__}.scale is {scale!r}, but it must be a whole number, 1 or more.")

    def __getitem__(self, position: int | tuple[int, int]) -> dict:
        """Sample ``index``; for ``(index, seed)``, see :class:`ResumableSampler`, its random transforms are seeded."""
        if isinstance(position, int):
            return super().__getitem__(position)
        index, seed = position
        with seeded(seed):
            return super().__getitem__(index)

    def prepare_data(self, index: int) -> dict:
        """A packed sample; with ``unreadable='skip'``, ``skipped`` names the damaged files whose place it takes.

        Raises:
            InputError: Images do not suit the config, or more than a few files in a row are damaged.
        """
        if not self.skips:
            return self.pipeline(self.get_data_info(index))
        skipped: list[str] = []
        while True:
            sample = self.get_data_info(index)
            try:
                packed = self.pipeline(sample)
                packed["data_samples"].set_metainfo({"skipped": skipped})
                return packed
            except (UnreadableImageError, ImageTooLargeError) as error:  # damage may be in the size
                files = [sample.get("img_path"), *sample.get("ref_paths", ())]
                damaged = (file for file in files if file and str(error).startswith(file))
                skipped.append(next(damaged, sample["gt_path"]))
                if len(skipped) == MAX_SKIPPED:
                    raise
            index = self._rand_another()
