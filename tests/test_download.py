"""download_superbai.py against a local stand-in for Superb AI's new platform."""

import io
import json
import time
import zipfile
from threading import Event

import pytest
from PIL import Image
from platform_server import PlatformServer
from steps import refused, start

from superbai import splits
from superbai.export import Export

SIZE = (640, 480)
POLYGON = {
    "type": "polygon",
    "polygons": [
        {"exterior": [[10, 20], [50, 20], [30, 60]], "holes": [[[20, 30], [21, 30]]]},
        {"exterior": [[70, 5], [80, 5], [80, 9]]},
    ],
}


def encode(size=SIZE, orientation=None):
    buffer, exif = io.BytesIO(), Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.new("RGB", size, (90, 120, 150)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


@pytest.fixture
def server():
    with PlatformServer() as server:
        yield server


@pytest.fixture
def yard(server):
    """A project with one box in each of two images, one of them for testing."""
    project = server.add_project("Yard", ["valve", "gauge"])
    for name, tags in (("north.jpg", ["test"]), ("south.jpg", [])):
        asset = project.add_asset(name, encode(), SIZE, tags)
        asset.draw("valve", (12.5, 30, 100, 40.25))
    return project


@pytest.fixture
def download(run_script, server, outputs):
    def run(*arguments, **environment):
        process = run_script(
            "download_superbai.py",
            *("--project=Yard", *arguments),
            outputs=outputs,
            **{**server.environment(), **environment},
        )
        text = process.stdout + process.stderr
        assert server.key not in text and "signature" not in text, text
        assert "Traceback" not in text, text
        return process

    return run


@pytest.fixture
def outputs(tmp_path):
    return tmp_path / "outputs"


def read(outputs, **options):
    """Returns what convert-superbai reads: classes, records and tags by name."""
    paths = [outputs / "images.zip"], outputs / "labels.zip"
    with Export(*paths, **options) as export:
        records = [export.read(item) for item in export.items]
        tags = {item.source_id: item.tags for item in export.items}
        by_split, _ = splits.split_items(export.items, 0.5, export.name)
        by_split = {k: [i.source_id for i in v] for k, v in by_split.items()}
        return (
            export.class_names,
            {record.source_id: record for record in records},
            tags,
            by_split,
            export.notes,
        )


def test_a_version_becomes_an_export(download, yard, outputs):
    yard.add_class("road", ["polygon"])
    yard.add_class("armadillo", ["bbox", "polygon"])
    yard.asset("south.jpg").draw("road", geometry=POLYGON)
    yard.asset("south.jpg").draw("armadillo", (1, 2, 3, 4), source="imported")
    yard.asset("south.jpg").draw("gauge", (630, -5, 30, 25))
    yard.freeze("v1")
    yard.classes[0]["name"] = "renamed later"
    yard.asset("north.jpg").annotations.clear()
    process = download("--version=V1")
    assert process.returncode == 0, process.stderr
    assert "downloaded: 2 images, 4 boxes, 1 polygon shapes" in process.stderr
    names, records, tags, by_split, notes = read(outputs)
    # The platform has no order of classes, so it is that of their names.
    assert names == ["armadillo", "gauge", "valve"]
    assert set(records) == {"Yard/north.jpg", "Yard/south.jpg"}
    assert records["Yard/north.jpg"].encoded == encode()
    assert records["Yard/north.jpg"].boxes_px == [(12.5, 30, 112.5, 70.25)]
    assert records["Yard/north.jpg"].labels == [2]
    # As drawn, then clipped to the image.
    assert records["Yard/south.jpg"].boxes_px[1:] == [(1, 2, 4, 6), (630, 0, 640, 20)]
    assert notes.left_out == {"objects of type polygon": 1}
    assert tags["Yard/north.jpg"] == {"test"} and not tags["Yard/south.jpg"]
    assert by_split["test"] == ["Yard/north.jpg"]
    assert by_split["train"] == ["Yard/south.jpg"]
    names, records, *_ = read(outputs, polygons_as_boxes=True)
    assert names == ["armadillo", "gauge", "road", "valve"]
    assert (10, 5, 80, 60) in records["Yard/south.jpg"].boxes_px


def test_boxes_of_models_and_empty_images(download, yard, outputs):
    asset = yard.asset("south.jpg")
    asset.draw("gauge", (1, 1, 9, 9), source="model")
    only = yard.add_asset("only-model.jpg", encode(), SIZE)
    only.draw("gauge", (1, 1, 9, 9), source="model")
    yard.add_asset("empty.jpg", encode(), SIZE)
    yard.freeze("v1")
    process = download()
    for words in (
        "left out: 2 shapes that a model has drawn",
        "left out: 1 images that only a model has labelled",
        "left out: 1 images without a shape that counts",
        "WARNING: 1 images have shapes of a model, which are left out, beside others",
    ):
        assert words in process.stderr
    facts = json.loads(process.stdout.splitlines()[-1])
    expected = {"images": 2, "boxes": 2, "left_out_images": 2}
    assert facts == {**expected, "left_out_model_shapes": 2}
    _, records, *_ = read(outputs)
    assert sum(len(record.labels) for record in records.values()) == 2

    # An image that only a model has labelled is no image without objects.
    process = download("--empty_images=use")
    assert "1 images that only a model has labelled" in process.stderr
    _, records, *_ = read(outputs)
    assert set(records) == {f"Yard/{n}.jpg" for n in ("north", "south", "empty")}
    assert records["Yard/empty.jpg"].boxes_px == []

    download("--model_shapes=use")
    _, records, *_ = read(outputs)
    assert records["Yard/only-model.jpg"].boxes_px == [(1, 1, 10, 10)]
    assert len(records["Yard/south.jpg"].boxes_px) == 2


def test_equal_file_names_are_told_apart(download, yard, outputs):
    other = yard.add_asset("north.jpg", encode((320, 240)), (320, 240))
    other.draw("gauge", (1, 2, 3, 4))
    yard.add_asset("../a\n.jpg", encode(), SIZE).draw("gauge", (5, 5, 5, 5))
    yard.freeze("v1")
    assert download().returncode == 0
    _, records, *_ = read(outputs)
    first = yard.assets[0]
    assert set(records) == {
        f"Yard/{first.id}/north.jpg",
        f"Yard/{other.id}/north.jpg",
        "Yard/south.jpg",
        "Yard/_/a_.jpg",
    }
    assert records[f"Yard/{other.id}/north.jpg"].width == 320
    assert records[f"Yard/{other.id}/north.jpg"].boxes_px == [(1, 2, 4, 6)]


def test_purged_and_rotated_images(download, yard, outputs):
    yard.add_asset("gone.jpg", b"", SIZE).draw("valve", (1, 2, 3, 4))
    turned = yard.add_asset("turned.jpg", encode(orientation=6), (480, 640))
    turned.draw("valve", (1, 2, 3, 4))
    yard.freeze("v1", purged=["gone.jpg"])
    process = download()
    assert "left out: 1 images whose files are deleted on the platf" in process.stderr
    assert "WARNING: 1 images have an EXIF rotation" in process.stderr
    _, records, *_ = read(outputs)
    assert records["Yard/turned.jpg"].height == 640 and len(records) == 3


def test_many_images_come_in_pages_and_some_answers_fail(
    download, yard, server, outputs
):
    for number in range(110):
        asset = yard.add_asset(f"{number}.jpg", encode((8, 8)), (8, 8))
        asset.draw("gauge", (1, 1, 2 + number / 100, 3))
    yard.freeze("v1")
    server.fail("versions", 429, 2, code="RATE_LIMITED", headers={"Retry-After": "0"})
    first = yard.assets[0].id
    server.fail(first, 503, headers={"Retry-After": "0"})
    server.fail(yard.assets[1].id, "short")
    server.fail(f"storage/{yard.assets[2].id}", "drop")
    assert download().returncode == 0
    _, records, *_ = read(outputs)
    assert len(records) == 112
    assert records["Yard/7.jpg"].boxes_px == [(1, 1, 1 + 2.07, 4)]


def test_a_link_that_has_expired_is_asked_for_again(download, yard, server, outputs):
    yard.freeze("v1")
    # Between the answer with the link and its use.
    server.on_request = lambda method, path, body: (
        path.startswith("/storage")
        and server.link_version == 0
        and setattr(server, "link_version", 1)
    )
    assert download().returncode == 0
    assert len(read(outputs)[1]) == 2 and server.link_version == 1


def test_errors_leave_nothing_behind(download, yard, outputs):
    refused(download("--project="), outputs, "--project: expected the name of a proj")
    yard.asset("north.jpg").draw("valve", geometry={"type": "bbox", "x": 1, "y": 2})
    yard.freeze("v1")
    words = "image north.jpg shape ", "a box with x, y, w and h, got"
    refused(download(), outputs, *words)


def test_what_was_there_stays_if_an_image_fails(download, server, yard, outputs):
    yard.freeze("v1")
    assert download().returncode == 0
    before = {path.name: path.read_bytes() for path in outputs.iterdir()}
    assert set(before) == {"images.zip", "labels.zip"}
    server.fail(yard.assets[1].id, 404, 99, code="ASSET_NOT_FOUND")
    process = download()
    assert process.returncode == 1
    assert "image south.jpg: cannot read its shapes: the platf" in process.stderr
    assert {path.name: path.read_bytes() for path in outputs.iterdir()} == before


def test_an_interrupted_download_ends_at_once(server, yard, outputs, monkeypatch):
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    yard.freeze("v1")
    first, second = (asset.id for asset in yard.assets)
    server.fail(first, 429, 99, headers={"Retry-After": "60"})
    hangs = Event()
    server.on_request = lambda method, path, body: (
        path.endswith(second) and hangs.wait(60)
    )
    process = start("download_superbai.py", outputs, "--project=Yard")
    while not (server.counts[f"GET {first}"] and server.counts[f"GET {second}"]):
        time.sleep(0.05)
    process.terminate()
    error = process.communicate(timeout=20)[1]
    hangs.set()
    assert process.returncode == 128 + 15 and "stopped by SIGTERM" in error, error
    assert not outputs.exists()


def test_netrc_does_not_replace_the_key(download, yard, tmp_path, outputs):
    # `requests` would take these for any request to the host, signed ones too.
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    yard.freeze("v1")
    assert download(HOME=str(tmp_path)).returncode == 0
    assert zipfile.ZipFile(outputs / "images.zip").namelist() == [
        "Yard/north.jpg",
        "Yard/south.jpg",
    ]
