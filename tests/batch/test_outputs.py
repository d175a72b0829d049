"""Which file is written for which input."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import pytest

from glean_ext.batch.output_checks import require_own_faces, require_writable, without_existing
from glean_ext.batch.output_plan import Job, plan_outputs, require_own_files
from glean_ext.cli.restore_run import left_out
from glean_ext.errors import InputError
from glean_ext.utils.image_writer import OUTPUT_FORMATS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """The working directory, with a small tree of (empty) files."""
    for name in (
        *(
            "in/a.png",
            "in/b.JPG",
            "in/deep/er/c.webp",
            "in/notes.txt",
            "in/film.MOV",
            "in/.hidden.png",
            "in/.git/d.png",
        ),
        *("more/a.tif", "single.jpg", "other.jpg"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def targets(*arguments, **options) -> dict[str, str]:
    return {str(job.source): str(job.target) for job in plan_outputs(*arguments, **options).jobs}


def fault(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- names


def test_a_folder_keeps_its_tree(tree):
    plan = plan_outputs(["in"], "out")
    assert {str(job.source): str(job.target) for job in plan.jobs} == {
        "in/a.png": "out/a.png",
        "in/b.JPG": "out/b.JPG.png",
        "in/deep/er/c.webp": "out/deep/er/c.webp.png",
        "in/film.MOV": "out/film.mov",
    }
    assert [job.is_video for job in plan.jobs] == [False, False, False, True]
    assert plan.left_out == [Path("in/notes.txt")] and plan.folder == Path("out") and not plan.alone
    assert list(targets(["in"], "out", recursive=False)) == ["in/a.png", "in/b.JPG", "in/film.MOV"]


def test_outputs_within_the_input_are_not_restored_again(tree):
    assert targets(["in"], "in/out") == {source: f"in/{target}" for source, target in targets(["in"], "out").items()}
    (tree / "in" / "out").mkdir()
    (tree / "in" / "out" / "a.png").touch()
    assert "in/out/a.png" not in targets(["in"], "in/out")


def test_one_file(tree):
    assert targets(["single.jpg"], "x.png") == {"single.jpg": "x.png"}
    assert targets(["single.jpg"], "new", suffix="_2x") == {"single.jpg": "new/single_2x.jpg.png"}
    assert targets(["single.jpg"], "in") == {"single.jpg": "in/single.jpg.png"}
    assert targets(["in/film.MOV"], "new") == {"in/film.MOV": "new/film.mov"}
    assert targets(["in/film.MOV"], "x.mkv") == {"in/film.MOV": "x.mkv"}
    for name in "x.JPG", "x.jpeg", "x.webp":
        assert targets(["single.jpg"], name) == {"single.jpg": name}
    assert plan_outputs(["single.jpg"], "x.png").folder is None and plan_outputs(["single.jpg"], "new").alone


def test_several_inputs_and_patterns(tree):
    assert targets(["single.jpg", "more"], "out") == {"single.jpg": "out/single.jpg.png", "more/a.tif": "out/a.tif.png"}
    assert targets(["*.jpg"], "out") == {"other.jpg": "out/other.jpg.png", "single.jpg": "out/single.jpg.png"}
    assert targets(["in/**/*.*"], "out", suffix="_new") == {
        "in/a.png": "out/a_new.png",
        "in/b.JPG": "out/b_new.JPG.png",
        "in/deep/er/c.webp": "out/deep/er/c_new.webp.png",
        "in/film.MOV": "out/film_new.mov",
    }
    assert targets([f"{tree}/**/*.jp*"], "out") == {
        f"{tree}/{name}.jpg": f"out/{name}.jpg.png" for name in ("other", "single")
    }
    assert targets(["in/*/../a.*"], "out") == {"in/deep/../a.png": "out/a.png"}  # never beside the output folder
    (tree / "[a].png").touch()
    assert targets(["[a].png"], "out") == {"[a].png": "out/[a].png"}  # a file of that name is no pattern


@pytest.mark.parametrize("format", [None, *OUTPUT_FORMATS])
def test_a_name_depends_on_its_own_source_only(tree, format):
    """So a file that is added to a folder, or taken out of it, renames no result."""
    before = targets(["in"], "out", format=format)
    for name in "b.png", "b.jpeg", "b.webp", "b.gif", "a.mp4", "a.gif", "film.avi", "film.mp4":
        (tree / "in" / name).touch()
    after = targets(["in"], "out", format=format)
    assert {source: after[source] for source in before} == before
    assert len(set(after.values())) == len(after) == len(before) + 8
    for source, target in after.items():
        assert targets([source], "out", format=format) == {source: str(Path("out", Path(target).name))}


def test_formats_of_results(tree):
    assert list(targets(["in"], "out", format="jpg").values()) == [
        *("out/a.png.jpg", "out/b.jpg", "out/deep/er/c.webp.jpg", "out/film.mov")
    ]
    assert list(targets(["in"], "out", suffix="_x", format="webp").values()) == [
        *("out/a_x.png.webp", "out/b_x.JPG.webp", "out/deep/er/c_x.webp", "out/film_x.mov")
    ]
    assert targets(["single.jpg"], "x.jpeg", format="jpg") == {"single.jpg": "x.jpeg"}
    assert fault(lambda: plan_outputs(["single.jpg"], "x.png", format="jpg")) == (
        "format='jpg' has no effect where the output is named. Leave it out, or give a folder."
    )


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("output", ["run.2024/", "run.2024/.", "x.png/", "deep/run.mp4/"])
def test_a_slash_at_its_end_makes_a_folder(tree, there, output):
    if there:
        (tree / output).mkdir(parents=True)
    folder = str(Path(output))
    assert targets(["single.jpg"], output) == {"single.jpg": f"{folder}/single.jpg.png"}
    assert targets(["in/film.MOV"], output, suffix="_x") == {"in/film.MOV": f"{folder}/film_x.mov"}
    assert plan_outputs(["single.jpg"], output).folder == Path(folder)
    assert targets(["single.jpg", "other.jpg"], output)["other.jpg"] == f"{folder}/other.jpg.png"
    assert targets(["more"], output) == {"more/a.tif": f"{folder}/a.tif.png"}


def test_a_pattern_leaves_out_its_results_in_its_own_folder(tree):
    """With a suffix, or as another format, also where all before it were such results."""
    for name in "a_x8.png", "a_x8_x8.png", "b_x8.JPG.png", "other_x8.png":
        (tree / "in" / name).touch()
    plan = plan_outputs(["in/*"], "in", suffix="_x8")
    assert [str(job.source) for job in plan.jobs] == ["in/a.png", "in/b.JPG", "in/film.MOV", "in/other_x8.png"]
    assert plan.earlier == [Path("in/a_x8.png"), Path("in/a_x8_x8.png"), Path("in/b_x8.JPG.png")]
    assert len(without_existing(plan, False, True)[0]) == 2 and len(without_existing(plan, True, False)[0]) == 4
    for name in "single.jpg.png", "other.jpg.png", "other.jpg_compare.png":
        (tree / name).touch()
    plan = plan_outputs(["*.*"], ".", compare=True)
    assert targets(["*.*"], ".", compare=True) == {"other.jpg": "other.jpg.png", "single.jpg": "single.jpg.png"}
    assert len(plan.earlier) == 3


def test_videos_by_the_name_of_the_output(tree):
    """GIFs are images, and videos where the output is named as one; so are files of unknown extensions."""
    for name in "a.gif", "film.dat", "cam.ts", "cam.TS":
        (tree / name).touch()
        assert plan_outputs([name], "x.mp4").jobs[0].is_video
    assert (
        targets(["a.gif"], "out") == {"a.gif": "out/a.gif.png"} and not plan_outputs(["a.gif"], "out").jobs[0].is_video
    )
    assert targets(["cam.ts"], "out") == {"cam.ts": "out/cam.ts.mp4"}
    assert (
        fault(lambda: plan_outputs(["single.jpg"], "x.mp4"))
        == "x.mp4: images are written as .png, .jpg, .jpeg, .webp. Name it x.png."
    )


def test_listing_is_linear(tree, monkeypatch):
    """Four times as many files that are no images: four times as many calls of the system."""
    calls = []
    for name in "stat", "lstat", "readlink":
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, real=real, **kwargs: calls.append(args) or real(*args, **kwargs))

    def count(files: int) -> int:
        folder = tree / str(files)
        folder.mkdir()
        for index in range(files):
            (folder / f"{index}.txt").touch()
        (folder / "a.png").touch()
        calls.clear()
        plan = plan_outputs([folder], "out")
        assert len(plan.left_out) == files and len(left_out(plan)) == 1
        return len(calls)

    assert count(1200) < 6 * count(300)


def test_patterns_leave_out_what_was_written(tree):
    """So the same command goes on after an interruption."""
    for name in "restored/in/a.png", "restored/more/x.png":
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    assert targets(["**/*.png"], "restored") == {"in/a.png": "restored/in/a.png"}
    assert targets(["in/*.png"], ".") == {"in/a.png": "a.png"}
    assert fault(lambda: plan_outputs(["restored/in/*.png"], "restored/in")) == (
        "restored/in/a.png is an input and would be overwritten. Give another output."
    )


def test_a_pattern_that_matches_one_file_keeps_the_tree(tree):
    plan = plan_outputs(["in/**/*.webp"], "out")
    assert plan.jobs == [Job(Path("in/deep/er/c.webp"), Path("out/deep/er/c.webp.png"))] and not plan.alone
    assert fault(lambda: plan_outputs(["in/**/*.webp"], "x.png")) == (
        "x.png is a file, but a pattern may match several files. Give a folder as output."
    )


def test_a_file_named_twice_is_restored_once(tree):
    (tree / "link").symlink_to("in")
    (tree / "in" / "same.png").symlink_to("a.png")
    expected = {"in/a.png": "out/a.png", "in/same.png": "out/same.png"}
    assert targets(["in/a.png", "in/*.png", "link/a.png", f"{tree}/in/a.png"], "out") == expected


def test_links_to_folders_are_left_out_and_reported(tree):
    (tree / "in" / "around").symlink_to(".")
    (tree / "in" / "films.png").symlink_to(tree / "more")
    plan = plan_outputs(["in"], "out")
    assert len(plan.jobs) == 4 and plan.links == [Path("in/around"), Path("in/films.png")]
    assert plan.left_out == [Path("in/around"), Path("in/films.png"), Path("in/notes.txt")]


def test_before_and_after_pictures(tree):
    jobs = plan_outputs(["in"], "out", compare=True).jobs
    assert jobs[0] == Job(Path("in/a.png"), Path("out/a.png"), Path("out/a_compare.png"))
    assert jobs[3].compare is None and jobs[0].outputs == [Path("out/a.png"), Path("out/a_compare.png")]


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([""], "out"), "An input is empty. Give an image or a folder of images; . is the folder at hand."),
        ((["/dev/null"], "out"), "/dev/null is a device, pipe or socket. Give an image or a folder of images."),
        ((["no"], "out"), "no: there is no such file or folder. Give an image or a folder of images."),
        ((["no*.jpg"], "out"), "no*.jpg: no image or video has such a name. Correct the pattern."),
        ((["in"], "x.png"), "x.png is a file, but in is a folder. Give a folder as output."),
        ((["*.jpg"], "x.png"), "x.png is a file, but there are several inputs. Give a folder as output."),
        ((["in"], "in"), "in is the input folder. Give another folder as output."),
        ((["single.jpg"], "x.tif"), "x.tif: images are written as .png, .jpg, .jpeg, .webp. Name it x.png."),
        ((["in/film.MOV"], "x.png"), "x.png: videos are written as .mp4, .mkv, .mov. Name it x.mp4."),
        ((["in/a.png"], "in/a.png"), "in/a.png is the input and would be overwritten. Give another output."),
        ((["in/a.png", "single.jpg"], "in"), "in/a.png is an input and would be overwritten. Give another output."),
        ((["single.jpg"], "out", "/x"), "suffix='/x' names a folder. Give a few letters."),
        (
            (["single.jpg"], "x.png", "_2"),
            "suffix='_2' has no effect where the output is named. Leave it out, or give a folder.",
        ),
        (
            (["in/a.png", "more/a.tif", "deep/a.png"], "out"),
            "deep/a.png: there is no such file or folder. Give an image or a folder of images.",
        ),
    ],
)
def test_what_cannot_be_planned(tree, arguments, message):
    assert fault(lambda: plan_outputs(*arguments)) == message


def test_a_folder_without_images(tree):
    (tree / "empty").mkdir()
    assert fault(lambda: plan_outputs(["empty"], "out")).startswith("empty has no images (.avif .bmp .gif .heic")


def test_names_that_clash(tree):
    (tree / "more" / "a.png").touch()
    (tree / "more" / "a.tif").unlink()
    assert fault(lambda: plan_outputs(["in", "more"], "out")) == (
        "in/a.png and more/a.png would both be written to out/a.png. Rename one, or restore them into two folders."
    )
    (tree / "in" / "a_compare.png").touch()
    assert "would both be written to out/a_compare.png" in fault(lambda: plan_outputs(["in"], "out", compare=True))


@pytest.mark.parametrize("told_apart", [True, False])
def test_names_that_differ_in_case_clash_where_the_disk_of_the_outputs_does_not_tell_them_apart(tmp_path, told_apart):
    jobs = [Job(Path(name), tmp_path / "new" / f"{name}.png") for name in ("I.tif", "i.tif")]
    with patch("glean_ext.batch.output_plan.tells_case", return_value=told_apart) as disk:
        if told_apart:
            require_own_files(jobs)
        else:
            assert fault(lambda: require_own_files(jobs)).startswith("I.tif and i.tif would both be written to")
        with pytest.raises(InputError, match="would both be written to"):
            require_own_files([jobs[0], Job(Path("x/I.tif"), jobs[0].target)])
    disk.assert_called_once_with(tmp_path / "new")


# ---------------------------------------------------------------- outputs that exist


def test_existing_outputs(tree):
    plan = plan_outputs(["in"], "out")
    assert without_existing(plan, False, False) == (plan.jobs, 0)
    (tree / "out" / "deep" / "er").mkdir(parents=True)
    for name in "a.png", "deep/er/c.webp.png":
        (tree / "out" / name).touch()
    assert fault(lambda: without_existing(plan, False, False)) == (
        "2 of 4 outputs exist in out (a.png, c.webp.png). Give overwrite to replace them, or skip_existing to restore "
        "the others only."
    )
    assert without_existing(plan, True, False) == (plan.jobs, 0)
    assert without_existing(plan, False, True) == ([plan.jobs[1], plan.jobs[3]], 2)
    alone = plan_outputs(["in/a.png"], "out")
    assert fault(lambda: without_existing(alone, False, False)) == (
        "out/a.png exists. Give overwrite, or another output."
    )
    (tree / "out" / "b.JPG.png").mkdir()
    assert fault(lambda: without_existing(plan, True, False)) == (
        "out/b.JPG.png is a folder, but a file has to be written there. Give another output."
    )


def test_a_comparison_alone_is_no_result(tree):
    """As a run leaves it that is killed between the two."""
    plan = plan_outputs(["in/a.png"], "out", compare=True)
    (tree / "out").mkdir()
    plan.jobs[0].compare.touch()
    assert without_existing(plan, False, True) == (plan.jobs, 0)
    plan.jobs[0].target.touch()
    assert without_existing(plan, False, True) == ([], 1)


def test_places_that_cannot_be_written_to(tree):
    require_writable(Path("new/folder"))
    assert not (tree / "new").exists()
    assert fault(lambda: require_writable(Path("single.jpg/folder"))) == (
        f"single.jpg/folder cannot be written to ({tree}/single.jpg is a file). Choose another output."
    )


def test_places_without_rights():
    """As somebody else, where this process may do anything."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "ro").mkdir(0o555)
        code = (
            "import os, pathlib\n"
            "from glean_ext.batch.output_checks import require_writable\n"
            "os.geteuid() or os.setuid(65534)\n"
            f"require_writable(pathlib.Path({name!r}, 'ro', 'out'))\n"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert done.stderr.splitlines()[-1] == (
            f"glean_ext.errors.InputError: {name}/ro/out cannot be written to (no rights in {name}/ro). Choose another "
            "output."
        )


# ---------------------------------------------------------------- faces


def test_faces_replace_nothing(tree):
    def check(*inputs, faces="faces", keep=False):
        plan = plan_outputs(inputs, "out")
        require_own_faces(plan, plan.jobs, Path(faces), Path("out"), keep)

    (tree / "faces" / "deep" / "er").mkdir(parents=True)
    for name in ("a_face.png", "a_faces00.png", "z_face00.png", "a_face00.jpg", "c.webp_face00.png"):
        (tree / "faces" / name).touch()
    check("in")
    (tree / "faces" / "deep" / "er" / "c.webp_face07_restored.png").touch()
    assert fault(lambda: check("in")) == (
        "faces exist in faces (c.webp_face07_restored.png). Give overwrite, or another folder."
    )
    check("in", keep=True)
    (tree / "more" / "a_face00.png").touch()
    assert fault(lambda: check("in", "more/a_face00.png", faces="more", keep=True)) == (
        "save_faces='more': more/a_face00.png is an input and would be overwritten. Give another folder."
    )
    assert fault(lambda: check("in", "more/a_face00.png", faces="out", keep=True)) == (
        "save_faces='out': out/a_face00.png is another output and would be overwritten. Give another folder."
    )


@pytest.mark.parametrize(
    ("inputs", "sources"),
    [
        (["*.jpg", "*.png"], ["a.jpg"]),
        (["*.png", "*.jpg"], ["a.jpg"]),
        (["a.jpg", "*.png"], ["a.jpg"]),
        (["a.*"], ["a.jpg"]),
    ],
)
def test_several_patterns_do_not_restore_results_of_each_other(tmp_path, inputs, sources):
    for name in ("a.jpg", "a.jpg.png"):
        (tmp_path / name).touch()
    plan = plan_outputs([str(tmp_path / text) for text in inputs], tmp_path)
    assert [job.source.name for job in plan.jobs] == sources
    assert [path.name for path in plan.earlier] == ["a.jpg.png"]
