"""The model zoo: its cards agree with the configs, the metafile and the files, and names are found or answered."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
import yaml

from glean_ext.config import load_config
from glean_ext.errors import InputError
from glean_ext.network_settings import sizes_of
from glean_ext.networks import StyleGAN2Generator, build_network
from glean_ext.size_requirements import MIN_INPUT
from glean_ext.zoo import CARDS, DEFAULT, find_model, has_model, list_models

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "glean_ext" / "assets"
METAFILE = yaml.safe_load((ROOT / "configs" / "metafile.yml").read_text())["Models"]
BANKS = {"bank_1024": (1024, {}), "bank_512": (512, {}), "bank_256": (256, {})}


def test_names_are_unique_and_found():
    names = [name for card in CARDS for name in (card.name, *card.aliases)]
    assert len(names) == len(set(names))
    assert all(find_model(name).name == card.name for card in CARDS for name in (card.name, *card.aliases))
    assert list_models() == [card.name for card in CARDS if card.kind == "restorer"]
    assert list_models(None) == [*list_models(), *list_models("bank")]
    assert DEFAULT in list_models() and not find_model(DEFAULT).demo
    assert has_model("glean_x8_2xb8_cat") and not has_model("photo.jpg")


def test_a_misspelt_name_is_answered_with_the_nearest_ones():
    with pytest.raises(InputError) as caught:
        find_model("glean_x16_fhq")
    assert "glean_x16_ffhq" in caught.value.hint and "'glean_x16_fhq'" in caught.value.message
    with pytest.raises(
        InputError, match=r"no model is called 'zebra'\. glean_ext\.list_models\(\) shows all of them\."
    ):
        find_model("zebra")


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_weights_are_safe_to_get(card):
    if card.weights.startswith("glean-ext://"):
        content = (ASSETS / card.file).read_bytes()
        assert hashlib.sha256(content).hexdigest() == card.sha256
        assert card.sha256 == json.loads((ASSETS / "SHA256.json").read_text())[card.file]
        assert round(len(content) / 1e6) == card.megabytes
    else:
        assert card.weights.startswith("https://")
        assert Path(card.file).stem.endswith(f"-{card.sha256}") and len(card.sha256) == 8


@pytest.mark.parametrize("card", [card for card in CARDS if card.kind == "restorer"], ids=lambda card: card.name)
def test_a_card_describes_its_config(card):
    generator = load_config(card.config).model.generator
    with torch.device("meta"):
        net = build_network(generator)
    if not card.demo:  # shipped files are in fp16
        assert round(sum(p.numel() for p in net.parameters()) * 4 / 1e6) == pytest.approx(card.megabytes, abs=1)
    in_size, out_size = generator.in_size, generator.out_size
    assert sizes_of(generator) == (None if net.size_requirements.any_size else net.size_requirements)
    if net.size_requirements.any_size:
        grows = f", {out_size // in_size} times larger" if out_size > in_size else ", unchanged"
        assert card.sizes == f"{MIN_INPUT}x{MIN_INPUT} or more{grows}"
    else:
        assert card.sizes == f"{in_size}x{in_size} -> {out_size}x{out_size}"


@pytest.mark.parametrize("card", [card for card in CARDS if card.config in BANKS], ids=lambda card: card.name)
def test_a_bank_has_the_size_of_its_card(card):
    with torch.device("meta"):
        bank = StyleGAN2Generator(BANKS[card.config][0])
    assert round(sum(p.numel() for p in bank.parameters()) * 4 / 1e6) == pytest.approx(card.megabytes, abs=1)


def test_the_biggan_bank_is_that_of_its_config():
    card, generator = find_model("biggan_deep_imagenet_256"), load_config("glean_biggan_x8_imagenet").model.generator
    assert generator.init_cfg.checkpoint == card.weights
    with torch.device("meta"):
        bank = build_network(generator).generator
    assert round(sum(p.numel() for p in bank.parameters()) * 4 / 1e6) == card.megabytes


def test_the_metafile_says_the_same():
    entries = {entry["Name"]: entry for entry in METAFILE}
    for card in CARDS:
        if card.kind == "restorer":
            entry = entries[card.name]
            assert entry["Config"] == f"configs/{card.config}.py"
            assert entry.get("Weights", card.weights) == card.weights
            assert set(entry.get("Alias", ())) <= set(card.aliases)


def test_the_banks_of_the_configs_are_in_the_zoo():
    known = {card.file for card in CARDS}
    for path in (ROOT / "configs").rglob("*.py"):
        for line in path.read_text().splitlines():
            if "config-f-official" in line:
                assert line.strip(" ')\"") in known, path
