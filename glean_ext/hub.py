"""The networks on the Hugging Face Hub: ``from_pretrained``, ``save_pretrained`` and ``push_to_hub``.

A repository holds ``model.safetensors``, ``config.json`` with the network's arguments, and a model card.

>>> from glean_ext.hub import HubLightGLEAN
>>> network = HubLightGLEAN.from_pretrained("owner/name")  # doctest: +SKIP
>>> network.push_to_hub("owner/another-name")  # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, PyTorchModelHubMixin
from huggingface_hub.utils import HfHubHTTPError, LocalEntryNotFoundError

from glean_ext.checkpoints import load_network_weights
from glean_ext.errors import InputError, first_line
from glean_ext.networks import GLEANStyleGANv2, LightGLEANStyleGANv2
from glean_ext.utils.files import expand_home

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


class _HubNetwork(  # type: ignore[call-arg]  # mypy does not see the mixin's own keywords
    PyTorchModelHubMixin, library_name="glean-ext", tags=["super-resolution"], model_card_template=CARD
):
    """What the hub's mixin does, with strict loading and one line for each mistake."""

    def generate_model_card(self, *args: Any, **facts: Any) -> ModelCard:
        return super().generate_model_card(*args, model_name=type(self).__name__, **facts)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **arguments: Any) -> Any:
        return super().from_pretrained(expand_home(pretrained_model_name_or_path), **arguments)

    def save_pretrained(self, save_directory: str | Path, **arguments: Any) -> str | None:
        return super().save_pretrained(expand_home(save_directory), **arguments)

    def _save_pretrained(self, save_directory: Path) -> None:
        arguments = self._hub_mixin_config
        assert isinstance(arguments, dict)
        arguments.pop("init_cfg", None)  # where the bank's file was on this machine
        super()._save_pretrained(save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **arguments: Any) -> Any:
        if "in_size" not in arguments:
            raise InputError(
                f"{model_id} has no config.json with the arguments of {cls.__name__}. Name a repository or folder that "
                "save_pretrained or push_to_hub wrote."
            )
        try:
            return super()._from_pretrained(model_id=model_id, **arguments)
        except (HfHubHTTPError, LocalEntryNotFoundError) as error:
            reason = first_line(error)
            raise InputError(
                f"{model_id}: model.safetensors cannot be had ({reason}). Check the repository."
            ) from error

    @classmethod
    def _load_as_safetensor(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        load_network_weights(model, model_file)
        return model.to(map_location)

    _load_as_pickle = _load_as_safetensor  # the same reader takes both, and runs no code of a file


class HubGLEAN(_HubNetwork, GLEANStyleGANv2):
    """GLEAN with ``from_pretrained(repository or folder)``, ``save_pretrained(folder)``, ``push_to_hub(repository)``.

    Raises:
        InputError: By ``from_pretrained``: a repository without the files of such a network.
    """


class HubLightGLEAN(_HubNetwork, LightGLEANStyleGANv2):
    """LightGLEAN with the methods of :class:`HubGLEAN`."""
