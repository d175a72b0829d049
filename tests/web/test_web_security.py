"""The web page over HTTP: what it keeps to itself, and whom it answers."""

from __future__ import annotations

import http.client
import re
import time
from urllib.parse import quote

import pytest
from support.web_server import (
    EXAMPLES,
    FACE,
    MODELS,
    assert_no_path,
)

from glean_ext.errors import InputError
from glean_ext.web.job_queue import Job, Order
from glean_ext.web.limits import clean_name


def test_the_page_needs_nothing_from_elsewhere(site):
    page = site.get("/")
    assert page.status == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
    links = re.findall(r'(?:src|href)="([^"#]+)"', page.body.decode())
    assert set(links) == {"/icon.svg", "/style.css", "/app.js"}
    imports = re.findall(r'from "([^"]+)"', site.get("/app.js").body.decode())
    for path in (*links, *imports):
        answer = site.get(path)
        assert answer.status == 200
        assert not re.search(rb"https?://(?!www\.w3\.org/2000/svg)", answer.body)
    assert "innerHTML" not in site.get("/app.js").body.decode()
    for example in site.get("/api/options").json["examples"]:
        content = site.get(f"/examples/{example['file']}")
        assert content.body == (EXAMPLES / example["file"]).read_bytes()
        assert example["model"] in MODELS
    assert site.ask("HEAD", "/").body == b""


def test_headers(site):
    for answer in (site.get("/"), site.get("/nowhere"), site.get("/", Host="evil.example"), site.post(b"")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers and "server" not in answer.headers


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/api", "/api/jobs/x/y/z"])
def test_there_is_nothing_else(site, path):
    assert site.get(path).status == 404


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:80", 200),
        ("LOCALHOST:1", 200),
        ("127.0.0.1:7860", 200),
        ("[::1]:7860", 200),
        ("192.168.1.7", 200),  # an address cannot be rebound
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost@evil.example", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
def test_names_of_others_are_refused(site, host, status):
    assert site.get("/api/options", Host=host).status == status


def test_two_hosts_are_refused(site):
    connection = http.client.HTTPConnection("127.0.0.1", site.port)
    connection.putrequest("GET", "/", skip_host=True)
    connection.putheader("Host", "localhost")
    connection.putheader("Host", "evil.example")
    connection.endheaders()
    assert connection.getresponse().status in (400, 421)
    connection.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"Origin": "http://localhost:5", "Host": "localhost:5", "Sec-Fetch-Site": "same-origin"}, 201),
        ({"Origin": "https://localhost:5", "Host": "localhost:5"}, 201),  # behind a proxy
        ({"Host": "127.0.0.1:7860", "Sec-Fetch-Site": "same-origin"}, 201),  # behind one as in docs/restoring.md
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:6", "Host": "localhost:5"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "http://["}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_other_pages_cannot_order(site, headers, status):
    answer = site.post(FACE, headers)
    assert answer.status == status
    if status == 201:
        site.wait(answer.json["id"])
    else:
        assert answer.error == "Only this page itself may ask for that."


def test_other_pages_cannot_cancel(site):
    job = site.submit(FACE)
    assert site.ask("DELETE", f"/api/jobs/{job}", headers={"Origin": "http://evil.example"}).status == 403
    assert site.wait(job)["state"] == "done"


def test_no_path_reaches_other_files(site):
    job = site.submit(FACE)
    other = site.submit(FACE)
    site.wait(other)
    secret = site.root / "secret.png"
    secret.write_bytes(b"SECRET")
    (site.root.parent / "secret.png").write_bytes(b"SECRET")
    climbs = [
        "..",
        "%2e%2e",
        "..%2f..",
        "..%5c..",
        "....//",
        "%252e%252e",
        "\\..",
        str(site.root),
        quote(str(site.root), ""),
    ]
    paths = [f"/{climb}/secret.png" for climb in climbs]
    paths += [f"/examples/{climb}/secret.png" for climb in climbs]
    paths += [f"/api/jobs/{climb}/secret.png" for climb in climbs]
    paths += [f"/api/jobs/{job}/{climb}%2fsecret.png" for climb in climbs]
    paths += [f"/api/jobs/{job}/{climb}/secret.png" for climb in climbs]
    paths += [f"/api/jobs/{job}/..%2f{other}%2fresult.png", f"/api/jobs/{job}/../{other}/result.png"]
    paths += [
        "/examples/..%2findex.html",
        "/examples/../../app.py",
        "/api/jobs/secret.png",
        "/etc/passwd",
        "//etc/passwd",
    ]
    paths += [f"/api/jobs/{job}/result.png%00.txt", f"/api/jobs/{job}/%00", f"/api/jobs/{'x' * 32}/result.png"]
    for path in paths:
        answer = site.get(path)
        assert answer.status == 404, path
        assert b"SECRET" not in answer.body and str(site.root).encode() not in answer.body
    secret.unlink()


def test_names_of_uploads_are_names_only(site):
    before = set(site.files())
    job = site.submit(FACE, name="../../../etc/<b>\n\u202egnp.exe")
    status = site.wait(job)
    assert status["name"] == "<b>gnp.exe"
    assert set(site.files()) - before == {f"{job}/before.png", f"{job}/result.png"}
    assert clean_name("a/") == clean_name("\0\n") == "the image"
    assert clean_name("x" * 300) == "x" * 100


def test_ids_cannot_be_guessed_nor_folders_read_by_others(site):
    jobs = {site.submit(FACE) for _ in range(4)}
    for job in jobs:
        assert re.fullmatch(r"[\w-]{32}", job)  # 192 bits
        site.wait(job)
        assert (site.root / job).stat().st_mode & 0o077 == 0


def test_faults_of_the_server_are_not_shown(site_with, capfd):
    site = site_with()
    site.root.rmdir()
    job = site.submit(FACE, name="me.png")
    assert site.wait(job)["error"] == "me.png: the server failed. What happened is in its terminal."
    assert "FileNotFoundError" in capfd.readouterr().err
    assert_no_path(site.get(f"/api/jobs/{job}"), site)
    site.root.mkdir()
    assert site.wait(site.submit(FACE))["state"] == "done"  # and it goes on


def test_faults_in_answering_are_not_shown(site_with, capfd):
    site = site_with()
    job = site.submit(FACE)
    site.wait(job)
    (site.root / job / "result.png").unlink()
    assert site.get(f"/api/jobs/{job}/result.png").status == 404
    (site.root / job / "result.png").mkdir()
    answer = site.get(f"/api/jobs/{job}/result.png")
    assert (answer.status, answer.error) == (500, "The server failed. What happened is in its terminal.")
    assert answer.headers["x-content-type-options"] == "nosniff"
    logged = ""
    for _ in range(100):  # it is logged after it is answered
        logged += capfd.readouterr().err
        if "IsADirectoryError" in logged:
            break
        time.sleep(0.05)
    assert "IsADirectoryError" in logged


def test_a_folder_that_cannot_be_written_to(worker, tmp_path):
    (tmp_path / "file").touch()
    job = Job("x", Order("me.png", "Demo GLEAN", "face", 0, (8, 8)), FACE, tmp_path / "file" / "x")
    with pytest.raises(InputError) as error:
        worker.restore(job)
    assert str(error.value) == "me.png: the server could not keep the result (Not a directory)."


def test_what_is_done_after_closing_is_not_kept(worker, tmp_path):
    job = Job("x", Order("me.png", "Demo GLEAN", "face", 0, (8, 8)), FACE, tmp_path / "gone" / "x")
    with pytest.raises(
        InputError, match=r"^me.png: the server could not keep the result \(No such file or directory\)"
    ):
        worker.restore(job)
    assert list(tmp_path.iterdir()) == []
