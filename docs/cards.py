"""Write a card for each model of the zoo: ``python docs/cards.py``. A test checks that they are up to date.

What is known as data comes from the zoo and ``configs/metafile.yml``; the words are below.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from glean_ext.utils.files import atomic_path  # noqa: E402
from glean_ext.zoo import CARDS, DEFAULT, ModelCard  # noqa: E402

CARTOON_DATA = (
    "5,000 cartoon faces of 64×64 pixels, drawn by the package itself (`python -m demo`) in the style ToonHead by "
    "Johan Melin, CC BY 4.0. No photographs, and no real people."
)
CARTOON_LIMITS = (
    "It knows cartoon faces only. A photograph becomes a cartoon, and the command warns of that. It shows that a "
    "machine and an installation work; it is of no other use."
)
FACES = (
    "FFHQ has people of many ages and origins, but not in equal numbers. A bank supplies what it saw often, so look "
    "twice at glasses, hats, hands before faces, profiles and children. The detail is invented. Do not use a result to "
    "identify anybody, or as evidence."
)
IMAGENET = "ImageNet was collected from the web; many of its images show people. The detail is invented."
EMOJI_DATA = (
    "2,992 emoji of nine classes at 64×64 pixels, Microsoft's Fluent emoji from the package @lobehub/fluent-emoji-3d "
    "1.1.0 (MIT): `python -m experiments.emoji_data`."
)
EMOJI_LIMITS = (
    "It knows emoji only. A photograph becomes an emoji, and the command warns of that. It shows one model for many "
    "classes; it is of no other use."
)
LSUN = "LSUN is a crawl of the web without further selection. The detail is invented."
NOT_RUN = (
    "The published numbers below were not reproduced: the weights could not be downloaded where this package was "
    "developed. Loading them was tested with files of the same structure."
)
LSUN_BANKS = ("cat_256", "car_512", "church_256", "horse_256")
WORDS = {  # what only people know: training data, limits, measurements of this package
    "glean_in128out1024_ffhq": ("FFHQ, 70,000 photographs of faces; tested on CelebA-HQ.", FACES, NOT_RUN),
    "glean_x16_ffhq": ("FFHQ, 70,000 photographs of faces, reduced by bicubic interpolation.", FACES, NOT_RUN),
    "glean_x8_cat": ("LSUN cat, reduced by bicubic interpolation.", LSUN, NOT_RUN),
    "glean_x16_cat": ("LSUN cat, reduced by bicubic interpolation.", LSUN, NOT_RUN),
    "demo_glean_x8": (
        CARTOON_DATA,
        CARTOON_LIMITS,
        "On 200 held-out faces: PSNR 31.05 dB, SSIM 0.925 (bicubic: 19.16 dB, 0.479), after 1,500 iterations. "
        "Its encoder has residual blocks, and its image is added to the enlarged input.",
    ),
    "demo_lightglean_x8": (
        CARTOON_DATA,
        CARTOON_LIMITS,
        "On 200 held-out faces: PSNR 31.28 dB, SSIM 0.930 (bicubic: 19.16 dB, 0.479), after 4,500 iterations.",
    ),
    "demo_glean_blind_x8": (
        CARTOON_DATA,
        CARTOON_LIMITS,
        "On 200 held-out faces with blur, noise and JPEG: PSNR 24.77 dB, LPIPS 0.073 (demo_glean_x8: 20.83 dB, 0.140; "
        "bicubic: 17.73 dB, 0.654), after 1,000 iterations from demo_glean_x8.",
    ),
    "demo_glean_color": (
        CARTOON_DATA,
        CARTOON_LIMITS,
        "On held-out faces: 27.5 dB (gray: 18.9 dB), the best of six answers 33.3 dB, after 400 iterations.",
    ),
    "demo_glean_biggan_x8": (
        EMOJI_DATA,
        EMOJI_LIMITS,
        "On 252 test emoji: PSNR 21.39 dB, LPIPS 0.154 (bicubic: 18.03 dB, 0.530), after 1,500 iterations; with the "
        "wrong label 21.26 dB, 0.162. Picture: [tasks](../tasks.md#images-of-many-classes-a-biggan-bank).",
    ),
    "biggan_deep_imagenet_256": ("ImageNet, 1.3 million photographs of 1000 classes.", IMAGENET, ""),
    "stylegan2_ffhq_1024": ("FFHQ, 70,000 photographs of faces.", FACES, ""),
    **{f"stylegan2_{name}": (f"LSUN {name.partition('_')[0]}.", LSUN, "") for name in LSUN_BANKS},
    "demo_biggan_bank": (EMOJI_DATA, EMOJI_LIMITS, "88,000 images were shown in training."),
    "demo_bank": (CARTOON_DATA, CARTOON_LIMITS, "370,000 images were shown in training; samples: [demo](../demo.md)."),
}
SKETCH = """\
# {name}

{purpose}.

| | |
|---|---|
| pixels | {sizes} |
| network | {collection}: {architecture} |
| config | `{config}` |
| weights | {weights} ({megabytes} MB or more) |
| SHA-256 | {sha256} |
| licence | {licence} |
| source | {source} |
| paper | [{title}]({url}) |

## How to use it

```shell
{command}
```

## Training data

{data}

## Limits

{limits}

## Results

{results}
"""


def card(model: ModelCard, metafile: dict) -> str:
    """The page of a model."""
    entry = next(entry for entry in metafile["Models"] if entry["Name"] == model.config)
    collection = next(one for one in metafile["Collections"] if one["Name"] == entry["In Collection"])
    data, limits, measured = WORDS[model.name]
    published = [
        f"Published: {result['Dataset']}, {', '.join(f'{name} {value}' for name, value in result['Metrics'].items())}."
        for result in entry.get("Results", [])
        if result.get("Metrics") and model.kind == "restorer"
    ]
    restores = f"glean restore --model {model.name} INPUT -o OUTPUT"
    if not model.demo:
        restores += f"    # needs weights: {model.megabytes} MB, fetched once"
    return SKETCH.format(
        name=model.name,
        purpose=model.purpose[0].upper() + model.purpose[1:],
        sizes=model.sizes,
        collection=collection["Name"],
        architecture=", ".join(collection["Metadata"]["Architecture"]),
        config=f"configs/{model.config}.py",
        weights="shipped with the package" if model.weights.startswith("glean-ext://") else f"<{model.weights}>",
        megabytes=model.megabytes,
        sha256=model.sha256 if len(model.sha256) == 64 else f"{model.sha256}… (only these digits are published)",
        licence=model.licence,
        source=model.source,
        title=collection["Paper"]["Title"],
        url=collection["Paper"]["URL"],
        command=restores if model.kind == "restorer" else f"glean models {model.name}",
        data=data,
        limits=limits,
        results="\n\n".join(text for text in (measured, *published) if text) or "None are known.",
    )


def index() -> str:
    """The page that lists the models."""
    lines = ["# Models", ""]
    for kind, title in ("restorer", "Restorers"), ("bank", "Latent banks, to train GLEAN with"):
        lines += [f"## {title}", "", "| model | what it is for | pixels | MB |", "|---|---|---|---|"]
        for model in CARDS:
            if model.kind == kind:
                name = f"[{model.name}]({model.name}.md)" + (" (default)" if model.name == DEFAULT else "")
                lines.append(f"| {name} | {model.purpose} | {model.sizes} | {model.megabytes} |")
        lines.append("")
    return "\n".join([*lines, "`glean models` prints the same list, and `glean models NAME` a card in short.", ""])


def pages() -> dict[str, str]:
    """File name in ``docs/model_cards`` -> content."""
    metafile = yaml.safe_load((ROOT / "configs/metafile.yml").read_text())
    return {"index.md": index()} | {f"{model.name}.md": card(model, metafile) for model in CARDS}


if __name__ == "__main__":
    for file, content in pages().items():
        with atomic_path(ROOT / "docs/model_cards" / file) as partial:
            partial.write_text(content)
