"""The networks on the Hugging Face Hub: ``from_pretrained``, ``save_pretrained`` and ``push_to_hub``.

A repository holds ``model.safetensors``, ``config.json`` with the network's arguments, and a model card.

>>> from glean_ext.hub import HubLightGLEAN
>>> network = HubLightGLEAN.from_pretrained("owner/name")  # doctest: +SKIP
>>> network.push_to_hub("owner/another-name")  # doctest: +SKIP
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.utils import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from glean_ext.checkpoints import load_network_weights
from glean_ext.errors import InputError, first_line
from glean_ext.networks import (
    GLEANBigGAN,
    GLEANColorization,
    GLEANDiffusion,
    GLEANStyleGANv2,
    LightGLEANStyleGANv2,
)
from glean_ext.utils.files import expand_home

CONFIG, WEIGHTS = "config.json", "model.safetensors"
ACCESS = ("revision", "cache_dir", "force_download", "local_files_only", "token")  # what the mixin says of a download
OURS = "Name a repository or folder that save_pretrained or push_to_hub wrote."
CARD = """\
---
{{ card_data }}
---

# {{ model_name }}

Image super-resolution with a frozen generator as latent bank (GLEAN, Chan et al., CVPR 2021), for
[glean-ext]({{ repo_url }}).

```python
from glean_ext.hub import {{ model_name }}

network = {{ model_name }}.from_pretrained("owner/name")  # (N, 3, h, w) RGB in [-1, 1] -> (N, 3, H, W)
```

Trained on: {{ training_data | default("say what images, their licence, and how they were degraded", true) }}.
"""


@contextmanager
def _one_line(repository: str | Path) -> Iterator[None]:
    """Raise what the hub and its client say as InputError."""
    try:
        yield
    except RepositoryNotFoundError as error:  # or it is private, or gated
        raise InputError(
            f"{repository}: the hub shows no such repository. Correct the name; if it is not public, log in as one who "
            "may see it (hf auth login)."
        ) from error
    except LocalEntryNotFoundError as error:
        raise InputError(
            f"{repository}: the hub does not answer, and the files are not in its cache. Check the connection."
        ) from error
    except HfHubHTTPError as error:
        raise InputError(
            f"{repository}: the hub refuses ({first_line(error)}). Log in (hf auth login), or try it later."
        ) from error
    except HFValidationError as error:
        raise InputError(f"{repository} is neither a folder nor the name of a repository. {OURS}") from error
    except (JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{repository}: {CONFIG} is no JSON ({first_line(error)}). {OURS}") from error


def _file(place: str, name: str, access: Mapping[str, Any]) -> Path:
    """A file of a folder or of a repository.

    Raises:
        InputError: It has no such file.
    """
    path = Path(place, name)
    if path.is_file():
        return path
    try:
        if not Path(place).is_dir():
            return Path(hf_hub_download(place, name, **access))
    except LocalEntryNotFoundError:
        raise
    except EntryNotFoundError:
        pass
    raise InputError(f"{place} has no {name}. {OURS}")


class _HubNetwork(  # type: ignore[call-arg]  # mypy does not see the mixin's own keywords
    PyTorchModelHubMixin, library_name="glean-ext", tags=["super-resolution"], model_card_template=CARD
):
    """What the hub's mixin does, with strict loading and one line for each mistake."""

    def generate_model_card(self, *args: Any, **facts: Any) -> ModelCard:
        return super().generate_model_card(*args, model_name=type(self).__name__, **facts)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **arguments: Any) -> Any:
        place = expand_home(pretrained_model_name_or_path)
        with _one_line(pretrained_model_name_or_path):
            try:
                return super().from_pretrained(place, **arguments)
            except AttributeError as error:  # of the mixin, which takes a dict for granted
                if isinstance(json.loads(_file(str(place), CONFIG, {}).read_text()), dict):
                    raise
                raise InputError(f"{place}: {CONFIG} has no arguments of {cls.__name__}. {OURS}") from error

    def save_pretrained(self, save_directory: str | Path, **arguments: Any) -> str | None:
        return super().save_pretrained(expand_home(save_directory), **arguments)

    def push_to_hub(self, repo_id: str, **arguments: Any) -> str:
        with _one_line(repo_id):
            return super().push_to_hub(repo_id, **arguments)

    def _save_pretrained(self, save_directory: Path) -> None:
        arguments = self._hub_mixin_config
        assert isinstance(arguments, dict)
        arguments.pop("init_cfg", None)  # where the bank's file was on this machine
        super()._save_pretrained(save_directory)

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, map_location: str = "cpu", strict: bool = True, **arguments: Any
    ) -> Any:
        access = {name: arguments.pop(name) for name in ACCESS}
        if "in_size" not in arguments:
            _file(model_id, CONFIG, access)  # says why, where it cannot be had
            raise InputError(f"{model_id}: {CONFIG} has no arguments of {cls.__name__}. {OURS}")
        try:
            network = cls(**arguments)
        except InputError:
            raise
        except (TypeError, ValueError) as error:
            raise InputError(f"{model_id}: {cls.__name__} refuses the arguments ({first_line(error)}).") from error
        load_network_weights(network, _file(model_id, WEIGHTS, access))  # type: ignore[arg-type]
        return network.to(map_location).eval()  # type: ignore[attr-defined]


class HubGLEAN(_HubNetwork, GLEANStyleGANv2):
    """GLEAN with ``from_pretrained(repository or folder)``, ``save_pretrained(folder)``, ``push_to_hub(repository)``.

    Raises:
        InputError: By ``from_pretrained``: a repository without the files of such a network, or one that cannot be
            had; by ``push_to_hub``: one that this user cannot write to.
    """


class HubLightGLEAN(_HubNetwork, LightGLEANStyleGANv2):
    """LightGLEAN with the methods of :class:`HubGLEAN`."""


class HubGLEANBigGAN(_HubNetwork, GLEANBigGAN):
    """GLEAN for many classes, with the methods of :class:`HubGLEAN`."""


class HubGLEANColorization(_HubNetwork, GLEANColorization):
    """The colorizer, with the methods of :class:`HubGLEAN`."""


class HubGLEANDiffusion(_HubNetwork, GLEANDiffusion):
    """GLEAN with a diffusion bank, and the methods of :class:`HubGLEAN`."""

    def _save_pretrained(self, save_directory: Path) -> None:
        assert isinstance(self._hub_mixin_config, dict)
        self._hub_mixin_config["pipeline"] = self.generator.configs  # in place of a folder of this machine
        super()._save_pretrained(save_directory)
