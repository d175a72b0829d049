"""Lists of files: every spelling that people use gives the names."""

from __future__ import annotations

import pytest

from glean_ext.errors import InputError
from glean_ext.utils.file_lists import read_file_list


@pytest.fixture
def read(tmp_path):
    def read(content: str | bytes, *existing: str) -> list[str]:
        path = tmp_path / "list.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_file_list(path, existing.__contains__)

    return read


def test_lists_of_the_published_kind(read):
    text = "00000.png (1024, 1024, 3)\n\nx y.jpg (256,256,3) 1\nplain\n0001_s001.png\t(480,480)\n"
    assert read(text) == ["00000.png", "x y.jpg", "plain", "0001_s001.png"]


def test_spaces_comments_and_blank_lines(read):
    text = "# cats\n  my cat.png  \n\n \t\nmy #1 cat.png\na.png # blurred\n/abs/b c.png\n#\n## x\nc.png (8,8,3)  # last"
    assert read(text) == ["my cat.png", "my #1 cat.png", "a.png", "/abs/b c.png", "c.png"]


def test_what_exists_decides(read):
    assert read("a # b.png") == ["a"]
    assert read("a # b.png", "a # b.png") == ["a # b.png"]
    assert read("#1.png\n# a comment", "#1.png") == ["#1.png"]
    assert read("a.png #good", "a.png") == ["a.png"]
    assert read("cat (3, 4) copy.png", "cat (3, 4) copy.png") == ["cat (3, 4) copy.png"]
    assert read("a.png 5\nmy cat.png 7", "a.png") == ["a.png", "my cat.png 7"]
    assert read('"my cat.png"\nsub\\b.png', "my cat.png", "sub/b.png") == ["my cat.png", "sub/b.png"]


@pytest.mark.parametrize(
    "line",
    ["my cat.png 0", "my cat.png\t0", "my cat.png,0", "my cat.png; tabby", '"my cat.png" 0 1', "my cat.png 3 # hi"],
)
def test_names_with_spaces_before_other_columns(read, line):
    assert read(line, "my cat.png", "my") == ["my cat.png"]
    assert read(f"sub\\{line}".replace('\\"', "\\").replace('" ', " "), "sub/my cat.png") == ["sub/my cat.png"]
    assert read("my cat.png 0", "my cat.png", "my cat.png 0") == ["my cat.png 0"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings_and_line_ends(read, encoding, end):
    names = ["my cat.png", "Käse.png", "猫.png", "a\u2028b.png"]
    assert read(end.join(names).encode(encoding)) == names
    assert read(end.join([*names, ""]).encode(encoding)) == names


@pytest.mark.parametrize(
    "content", ["Käse.png\n".encode("latin-1"), b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0", b"\xff\xfea"]
)
def test_what_is_no_text(read, tmp_path, content):
    with pytest.raises(InputError) as error:
        read(content)
    assert str(error.value) == (
        f"{tmp_path}/list.txt: the list cannot be read (it is no text in UTF-8 or UTF-16). Give a text file with a "
        "name a line."
    )


@pytest.mark.parametrize("content", ["", "\n\n", "# only a comment\n", "\ufeff"])
def test_lists_that_name_nothing(read, content):
    assert read(content) == []


def test_a_missing_list(tmp_path):
    with pytest.raises(InputError) as error:
        read_file_list(tmp_path / "no.txt")
    assert str(error.value) == (
        f"{tmp_path}/no.txt: the list cannot be read (No such file or directory). Give a text file with a name a line."
    )
