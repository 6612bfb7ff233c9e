"""Which version of the new platform is read, and what is refused."""

import zipfile

import pytest
import requests
from platform_server import PlatformServer

from superbai.platform import platform_api
from superbai.platform.platform_api import PlatformApi
from superbai.platform.platform_credentials import Credentials
from superbai.platform.platform_lookup import find_project, find_version
from superbai.platform.platform_version import VersionReader
from yolov3_tf2.errors import InputError

JPEG = b"\xff\xd8\xff\xe0" + bytes(60)


@pytest.fixture
def server():
    with PlatformServer() as server:
        project = server.add_project("Yard", ["valve"])
        for name in ("north.jpg", "south.jpg"):
            project.add_asset(name, JPEG, (640, 480)).draw("valve", (1, 2, 3, 4))
        server.add_project("Film", kind="video")
        yield server


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(platform_api, "RETRY_SECONDS", (0.01, 0.01))


class Bar:
    def update(self, number=1):
        pass


def write(server, folder, project="Yard", version=""):
    """Does what the step does; returns the version."""
    api = PlatformApi(Credentials(server.url, server.tenant, server.key))
    project = find_project(api, project)
    version = find_version(api, project, version)
    reader = VersionReader(api, project, version, with_models=False, with_empty=False)
    reader.write(folder, Bar())
    return version


def freeze(*arguments, **options):
    return lambda server: server.projects[0].freeze(*arguments, **options)


def fail(*arguments, **options):
    return lambda server: server.fail(*arguments, **options)


def lose_files(server):
    server.projects[0].freeze("v1")
    server.projects[0].assets.clear()


def replace_files(encoded):
    def prepare(server):
        server.projects[0].freeze("v1")
        for asset in server.projects[0].assets:
            asset.encoded = encoded

    return prepare


@pytest.mark.parametrize(
    ("names", "prepare", "words"),
    [
        (["x"], None, "no project of this name; it has: Film, Yard."),
        (["Film"], None, "expected a project of images, got one of 'video'."),
        (
            ["00000000-0000-4000-8000-000000000000"],
            None,
            "the platform does not have it (404 PROJECT_NOT_FOUND ",
        ),
        (
            ["Yard"],
            lambda server: server.add_project("Yard"),
            "the workspace has 2 of this name; give the id of one instead: ",
        ),
        (["Yard"], None, "it has no version that is ready; it has: none. Make a"),
        (
            ["Yard", "v9"],
            freeze("v1"),
            "project 'Yard': it has no version 'v9'; it has: v1 (ready).",
        ),
        (
            ["Yard"],
            freeze("v1", status="building"),
            "it has no version that is ready; it has: v1 (building).",
        ),
        (
            ["Yard", "v1"],
            freeze("v1", status="failed", error="too old"),
            "version 'v1' is failed (too old); expected one that is ready.",
        ),
        (
            ["Yard"],
            freeze("v1", frozen_asset_count=3),
            "version 'v1' of project 'Yard': expected 3 images, the platform lists 2;",
        ),
        (
            ["Yard"],
            freeze("v1", purged=["north.jpg", "south.jpg"]),
            "no image is left (2 images whose files are deleted on the platform).",
        ),
        (
            ["Yard", "v1"],
            lambda server: [server.projects[0].freeze("v1") for _ in range(2)],
            "project 'Yard': it has 2 versions 'v1'; give the id of one instead: ",
        ),
        (["Yard"], replace_files(b" <!DOCTYPE html><p>"), "its file, got a web page; "),
        (
            ["Yard"],
            replace_files(b""),
            "no image is left (2 images whose file is empty",
        ),
        (["Yard"], lose_files, "cannot fetch its file: the storage answers 404."),
        (
            ["Yard"],
            fail("projects", "html", 9),
            "expected JSON, got something else; is SUPERB_AI_BASE_URL right",
        ),
        (
            ["Yard"],
            fail("projects", 410, code="EXPORT_EXPIRED"),
            "it is gone (410 EXPORT_EXPIRED set up; request r-1).",
        ),
        (
            ["Yard"],
            fail("projects", 429, code="RESOURCE_LIMIT_EXCEEDED"),
            "too many requests; try again later (429 RESOURCE_LIMIT_EXCEEDED",
        ),
        (
            ["Yard"],
            fail("projects", 429, headers={"Retry-After": "4000"}),
            "request r-1); it asks to wait 4000 s, so run again then.",
        ),
        (
            ["Yard"],
            fail("projects", 429, 3),
            "too many requests; try again later (429 INTERNAL_ERROR",
        ),
        (["Yard"], fail("projects", 502, 3), "the platform failed (502 INTERNAL_ERROR"),
        (
            ["Yard"],
            fail("projects", "drop", 3),
            "127.0.0.1: no connection, or it was",
        ),
        (
            ["Yard"],
            fail("projects", 429, headers={"Retry-After": "9" * 400}),
            "it asks to wait more than a day, so run again then.",
        ),
        (
            ["Yard"],
            fail("projects", 302, headers={"Location": "/elsewhere"}),
            "got a redirect; is SUPERB_AI_BASE_URL right?",
        ),
        (
            ["Yard"],
            fail("projects", 403, code="AUTH_FORBIDDEN"),
            "the user of the key may not do this",
        ),
        (
            ["Yard"],
            lambda server: setattr(server, "tenant", "other"),
            "the platform has no such workspace; check SUPERB_AI_TENANT (404 TENANT",
        ),
    ],
)
def test_errors(server, tmp_path, names, prepare, words):
    credentials = Credentials(server.url, server.tenant, server.key)
    if prepare:
        prepare(server)
    with pytest.raises(InputError) as error:
        api = PlatformApi(credentials)
        project = find_project(api, names[0])
        version = find_version(api, project, "".join(names[1:]))
        options = {"with_models": False, "with_empty": False}
        VersionReader(api, project, version, **options).write(tmp_path, Bar())
    text = str(error.value)
    assert words in text and "\n" not in text
    assert server.key not in text and "signature" not in text


def test_the_newest_that_is_ready_is_taken(server, tmp_path):
    (yard, _) = server.projects
    first = yard.freeze("v1", created_at="2026-01-02T00:00:00Z")
    yard.freeze("v0", created_at="2026-01-01T00:00:00Z")
    yard.freeze("v2", created_at="2026-01-03T00:00:00Z", status="pending")
    assert write(server, tmp_path)["id"] == first.facts["id"]


@pytest.mark.parametrize("value", [None, "1", float("nan"), float("inf"), True])
@pytest.mark.parametrize("kind", ["bbox", "polygon"])
def test_places_that_are_no_numbers(server, tmp_path, kind, value):
    geometry = {"type": "bbox", "x": value, "y": 2, "w": 3, "h": 4}
    if kind == "polygon":
        ring = [[1, 2], [3, 4], [5, value]]
        geometry = {"type": "polygon", "polygons": [{"exterior": ring}]}
    server.projects[0].assets[0].draw("valve", geometry=geometry)
    server.projects[0].freeze("v1")
    with pytest.raises(InputError, match="expected a finite number, got"):
        write(server, tmp_path)


def test_one_file_that_is_no_image(server, tmp_path):
    server.projects[0].freeze("v1")
    server.projects[0].asset("north.jpg").encoded = b"x"
    write(server, tmp_path)
    assert zipfile.ZipFile(tmp_path / "images.zip").namelist() == ["Yard/south.jpg"]


def test_half_characters_in_names(server, tmp_path):
    (yard, _) = server.projects
    yard.classes[0]["name"] = "val\ud800ve \U0001f600"
    yard.assets[0].filename, yard.assets[0].tags = "nor\udfffth.jpg", ["\ud83d"]
    yard.freeze("v\ud800")
    write(server, tmp_path)
    assert "Yard/nor\ufffdth.jpg" in zipfile.ZipFile(tmp_path / "images.zip").namelist()
    text = zipfile.ZipFile(tmp_path / "labels.zip").read("project.json").decode()
    assert "val\ufffdve \U0001f600" in text


def test_ids_tell_projects_of_one_name_apart(server, tmp_path):
    (yard, _) = server.projects
    server.add_project("Yard")
    version = yard.freeze("v1")
    found = write(server, tmp_path, yard.id, version.facts["id"])
    assert found["project_id"] == yard.id


def test_temporary_failures_are_tried_again(server, tmp_path):
    server.projects[0].freeze("v1")
    for status in (500, "drop", 429):
        server.fail("projects", status, 2)
        write(server, tmp_path)
    assert server.counts["GET projects"] == 9


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:9", "127.0.0.1: the connection is refused; is a firewall"),
        ("https://nowhere.invalid", "nowhere.invalid: the name of the host cannot be"),
    ],
)
def test_no_connection_is_told_and_not_tried_for_long(monkeypatch, address, words):
    waits, lines = [], []
    monkeypatch.setattr(platform_api.logging, "info", lambda *line: lines.append(line))
    monkeypatch.setattr(platform_api, "RETRY_SECONDS", (0.5, 1, 2, 4, 8, 16))
    monkeypatch.setattr(platform_api.time, "monotonic", lambda: sum(waits))
    monkeypatch.setattr(platform_api.time, "sleep", lambda _: waits.append(1))
    with pytest.raises(InputError) as error:
        PlatformApi(Credentials(address, "acme", "sbd_pk_x")).get("/projects", "lost")
    assert str(error.value).startswith(f"lost: {words}") and len(waits) < 10
    assert "Trying again in" in lines[0][0] and words in str(lines[0][1])


def test_a_platform_that_asks_for_no_wait_gets_one(server, monkeypatch):
    waits = []
    monkeypatch.setattr(platform_api, "RETRY_SECONDS", (0.5, 1, 2, 4, 8, 16))
    monkeypatch.setattr(platform_api.time, "monotonic", lambda: 10 * len(waits))
    monkeypatch.setattr(platform_api.time, "sleep", waits.append)
    server.fail("projects", 429, 99, headers={"Retry-After": "0"})
    with pytest.raises(InputError):
        find_project(PlatformApi(Credentials(server.url, "acme", server.key)), "Yard")
    assert len(waits) == 6


def test_the_wait_that_is_asked_for_is_kept(server, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(platform_api.time, "sleep", waits.append)
    monkeypatch.setattr(platform_api.time, "monotonic", iter(range(0, 99, 2)).__next__)
    server.projects[0].freeze("v1")
    server.fail("projects", 429, headers={"Retry-After": "7"})
    write(server, tmp_path)
    # Each look at the clock is two seconds after the last: at 2, 4 and 6.
    assert len(waits) == 3


def test_an_answer_that_is_too_short_is_none():
    # Older versions of what `requests` uses do not check this.
    response = requests.Response()
    response._content, response.headers["Content-Length"] = b"half", "8"
    with pytest.raises(requests.ConnectionError):
        platform_api._check_length(response)
    response.headers["Content-Encoding"] = "gzip"
    platform_api._check_length(response)
