"""`glean evaluate`: its values against the metrics themselves, pairing by name, the report, and continued runs."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from evaluation.conftest import PHOTOGRAPHS, save
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from support.metric_references import astronaut, blurred
from support.tools import run_main

from glean_ext import cli
from glean_ext.cli.evaluate import main
from glean_ext.errors import InputError
from glean_ext.evaluation import EvaluationOptions, evaluate
from glean_ext.evaluation.measures import Sample, create_measures
from glean_ext.evaluation.report import sorting_measure, worst_first
from glean_ext.utils.image_io import read_rgb
from glean_ext.utils.pixel_errors import psnr, ssim


def options(root: Path, *outputs: str, **changes) -> EvaluationOptions:
    values = {"reference": root / "gt", "report": root / "report.html", "metrics": ("psnr",)}
    return EvaluationOptions(tuple(root / name for name in outputs or ("good",)), **(values | changes))


def fault(*arguments, **changes) -> str:
    with pytest.raises(InputError) as error:
        evaluate(options(*arguments, **changes))
    return error.value.render(cli.as_option)


def test_values_are_those_of_other_implementations(folders):
    found = evaluate(options(folders, metrics=("psnr", "ssim"), inputs=folders / "lq"))
    assert [row.group.name for row in found.rows] == sorted(PHOTOGRAPHS)
    for row in found.rows:
        output, gt = read_rgb(row.group.outputs[0]), PHOTOGRAPHS[row.group.name]()
        assert row.values[0]["psnr"] == pytest.approx(peak_signal_noise_ratio(gt, output), abs=1e-3)
        theirs = structural_similarity(
            gt, output, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
        )
        assert row.values[0]["ssim"] == pytest.approx(theirs, abs=2e-3)


def test_values_are_mmagics(folders):
    import glean_ext.plugin  # noqa: F401, I001  (makes MMagic importable)
    from mmagic.evaluation import metrics

    for name in PHOTOGRAPHS:
        output, gt = read_rgb(folders / f"good/{name}.png"), PHOTOGRAPHS[name]()
        assert psnr(output, gt) == pytest.approx(metrics.psnr(output, gt), abs=1e-5)  # theirs is in fp32
        assert ssim(output, gt) == pytest.approx(metrics.ssim(output, gt), abs=1e-9)
    with pytest.raises(InputError, match="at least 11 pixels"):
        create_measures(("ssim",))[0].compute(Sample(output[:10], gt[:10]))


def test_what_needs_mmagic_is_left_out_without_it(folders):
    """So is all of MMagic's, for PSNR and SSIM."""
    code = (
        "import sys; sys.modules.update(mmagic=None, mmcv=None, torchvision=None)\n"
        "from glean_ext.cli.main import console_script; console_script()"
    )
    command = [sys.executable, "-c", code, "evaluate", "good", "--reference", "gt", "--inputs", "lq"]
    done = subprocess.run(command, cwd=folders, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "niqe is not measured: it needs mmagic, which is not installed." in done.stdout
    table = json.loads((folders / "evaluation.json").read_text())["restorers"]["good"]
    assert table.keys() == {"psnr", "ssim", "lr_psnr"}
    done = subprocess.run([*command, "--metrics", "psnr", "niqe"], cwd=folders, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: mmagic is not installed. pip install 'glean-ext[mmagic]'\n"


def test_the_ground_truth_is_perfect(folders):
    found = evaluate(options(folders, "gt", metrics=("psnr", "ssim", "lr_psnr"), inputs=folders / "lq"))
    for metric, value in ("psnr", np.inf), ("ssim", 1), ("lr_psnr", np.inf):
        assert found.values(metric, 0) == pytest.approx([value] * 3)
    content = json.loads((folders / "report.json").read_text(), parse_constant=pytest.fail)  # JSON has no Infinity
    assert content["restorers"]["gt"]["psnr"] == {"mean": "inf", "images": 3}


def test_by_default_all_that_is_given_is_measured(folders, weights):
    def names(**changes) -> list[str]:
        return [measure.name for measure in evaluate(options(folders, metrics=(), **changes)).measures]

    assert names() == ["psnr", "ssim", "niqe"]
    assert names(reference=None) == ["niqe"]
    assert names(reference=None, inputs=folders / "lq") == ["lr_psnr", "niqe"]
    assert names(lpips=str(weights / "alexnet.pth")) == ["psnr", "ssim", "lpips", "niqe"]


def test_lpips_without_its_package_is_refused_at_once(folders, monkeypatch):
    """Its weights are given, so it is not left out with a notice."""
    monkeypatch.setattr("glean_ext.evaluation.names.find_spec", lambda package: None)
    notices: list[str] = []
    with pytest.raises(ModuleNotFoundError, match="lpips"):
        evaluate(options(folders, metrics=(), lpips="alexnet.pth"), notices.append)
    assert not notices


def test_restorers_are_compared_on_the_images_that_all_have(folders):
    (folders / "bad/cup_restored.webp").unlink()
    (folders / "good/notes.txt").write_text("mine")
    for path in (folders / "good").rglob("*.png"):
        path.rename(path.with_name(f"{path.stem}_restored.png"))
    notices: list[str] = []
    found = evaluate(options(folders, "good", "bad", suffix="_restored"), lambda notice: notices.append(str(notice)))
    assert [row.group.name for row in found.rows] == ["astronaut", "sub/officer"] and found.labels == ["good", "bad"]
    assert found.values("psnr", 0).min() > found.values("psnr", 1).max()
    named = "\n".join(notices)
    for folder in "good", "gt":
        assert f"{folders / folder}: 1 images have no partner and are left out: cup" in named
    assert "notes.txt" in named


def test_images_that_are_too_large_are_refused_with_the_option_that_allows_them(folders):
    message = fault(folders, max_pixels=10)
    assert message.endswith("limit of 10 pixels. Crop it or scale it down. Or give a larger --max-pixels.")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow's own is less than what glean restore makes
        assert len(evaluate(options(folders)).rows) == len(PHOTOGRAPHS)


def test_results_of_a_folder_of_jpegs_have_partners(folders):
    """``glean restore`` calls that of ``a.jpg`` ``a.jpg.png``, and with a suffix ``a_restored.jpg.png``."""
    for path in (folders / "good").rglob("*.png"):
        path.rename(path.with_name(f"{path.stem}_restored.JPG.png"))
    found = evaluate(options(folders, suffix="_restored"))
    assert [row.group.name for row in found.rows] == sorted(PHOTOGRAPHS)


def test_cases_are_sorted_from_the_worst_on(folders):
    found = evaluate(options(folders, "good", metrics=("psnr", "niqe")))
    psnr = sorting_measure(found.measures, None)
    assert psnr.name == "psnr" and sorting_measure(found.measures, "niqe").name == "niqe"
    assert worst_first(found.rows, psnr, 0)[0].group.name == "cup"
    niqe = found.measures[1]
    values = [row.values[0]["niqe"] for row in worst_first(found.rows, niqe, 0)]
    assert values == sorted(values, reverse=True)


def test_the_report_has_the_worst_cases_as_large_as_the_best(folders, capsys):
    name = "a<b>&'.png"
    shutil.copy(folders / "gt/cup.png", folders / "gt" / name)
    save(blurred(read_rgb(folders / "gt/cup.png"), 9), folders / "good" / name)
    shutil.copy(folders / "lq/cup.png", folders / "lq" / name)
    arguments = ["--reference", folders / "gt", "--inputs", folders / "lq", "-o", folders / "r.html", "--cases", 1]
    code, out, _ = run_main(main, capsys, folders / "good", *arguments)
    assert code == 0 and "4 images" in out and "psnr ↑" in out and "lr_psnr ↑" in out
    page = (folders / "r.html").read_text()
    worst, best = re.split("<h2>Best", page.split("<h2>Worst")[1].split("<details>")[0])
    assert "a&lt;b&gt;&amp;&#x27;" in worst and "a<b>" not in page and "cup" not in best
    assert worst.count("<img") == best.count("<img") == 3  # input, result, reference
    assert worst.count("class=small") == best.count("class=small") == 1  # the input, enlarged without smoothing
    assert not re.search(r"(src|href)='?(https?:|/)", page)  # needs no other file, and no network
    with open(folders / "r.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 4 and lines[0].keys() == {"image", "restorer", "psnr", "ssim", "lr_psnr", "niqe"}


def test_sizes_that_differ_are_a_line_each_and_the_rest_is_measured(folders, capsys):
    save(astronaut()[:100], folders / "good/astronaut.png")
    (folders / "good/cup.png").write_bytes(b"damaged")
    code, out, err = run_main(
        main, capsys, folders / "good", "--reference", folders / "gt", "--metrics", "psnr", "-o", folders / "r.html"
    )
    assert code == 2
    assert (
        f"failed: {folders}/good/astronaut.png has 256x100 pixels, but its reference "
        f"{folders}/gt/astronaut.png 256x192. Restore to that size."
    ) in out.replace("\n", " ")
    assert "cup.png is no image" in out and "1 images" in out
    assert err == "error: 2 of 3 images failed (astronaut, cup); why is said above.\n"
    assert "astronaut.png has 256x100" in (folders / "r.html").read_text()


def test_what_cannot_be_measured_is_counted_with_its_reason(folders):
    for name in "gt", "good":
        save(read_rgb(folders / name / "cup.png")[:90], folders / name / "cup.png")
    found = evaluate(options(folders, metrics=("psnr", "niqe")))
    error, count = found.unmeasured["niqe"]
    assert count == 1 and len(found.values("niqe", 0)) == 2 and len(found.values("psnr", 0)) == 3
    assert "at least 96x192 pixels, but the output has 256x90" in str(error)


def test_unchanged_files_are_not_measured_again(folders, monkeypatch):
    read: list[str] = []
    monkeypatch.setattr("glean_ext.evaluation.run.read_rgb", lambda path: read.append(path.name) or read_rgb(path))
    first = evaluate(options(folders))
    assert len(read) == 6
    read.clear()
    assert [row.values for row in evaluate(options(folders)).rows] == [row.values for row in first.rows] and not read
    save(astronaut(), folders / "good/astronaut.png")
    changed = evaluate(options(folders))
    assert read == ["astronaut.png"] * 2 and changed.rows[0].values == [{"psnr": np.inf}]
    read.clear()
    os.utime(folders / "good/astronaut.png", (1, 1))  # another file of the same length has another time
    evaluate(options(folders))
    assert read == ["astronaut.png"] * 2


def test_an_interrupted_run_keeps_what_it_measured(folders):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(options(folders), on_image=stop)
    assert json.loads((folders / "report.json").read_text())["measured"] and not (folders / "report.html").exists()


def test_faults_are_one_line(folders):
    assert fault(folders, metrics=("pnsr",)) == (
        "--metrics: there is no metric 'pnsr'. Did you mean psnr? There are psnr, ssim, lpips, identity, lr_psnr, "
        "niqe, and pyiqa's: pyiqa:NAME."
    )
    assert "Did you mean pyiqa:musiq or" in fault(folders, metrics=("musiq",))
    assert fault(folders, metrics=("lr_psnr",)) == "--metrics lr_psnr needs --inputs."
    assert fault(folders, sort_by="ssim") == "--sort-by is 'ssim', which is not measured. Give one of psnr."
    assert fault(folders, "bad").endswith("Give what is added to the names of the results as --suffix.")
    assert fault(folders, "none") == f"{folders}/none: there is no such folder. Give a folder."
    assert "LPIPS.pretrained is None" in fault(folders, metrics=("lpips",))
    (folders / "good/cup.jpg").write_bytes((folders / "good/cup.png").read_bytes())
    assert "both have the name 'cup'" in fault(folders)
    (folders / "good/cup.jpg").unlink()
    (folders / "report.json").write_text('{"mine": 1}')
    assert fault(folders).startswith(f"{folders}/report.json exists and is no result of an evaluation.")
    with pytest.raises(InputError, match=r"must end in \.html"):
        options(folders, report=folders / "r.pdf")


def test_same_names_of_folders_are_told_apart(folders):
    (folders / "a").mkdir()
    shutil.copytree(folders / "good", folders / "a/good")
    assert evaluate(options(folders, "good", "a/good")).labels == [f"{folders.name}/good", "a/good"]


def test_the_mean_of_several_results_stands_in_the_table(folders, capsys):
    for path in (folders / "bad").rglob("*.webp"):
        Image.open(path).save(path.with_name(f"{path.stem.removesuffix('_restored')}.png"))
        path.unlink()
    code, out, _ = run_main(
        main,
        capsys, folders / "good", folders / "bad", "--reference", folders / "gt", "--metrics", "psnr",
        "--report", folders / "r.html",
    )  # fmt: skip
    found = evaluate(options(folders, "good", "bad"))
    assert code == 0
    for i in range(2):
        assert f"{found.values('psnr', i).mean():.2f} ±" in out
