"""Class files and patterns; inputs as a user gives them are in tests/test_steps.py."""

import io
import json
import random
import tarfile
import unicodedata

import pytest
import valohai
from file_server import Page, serving
from project import SHARED
from steps import NAMES, model_files

from valohai_step import inputs
from valohai_step.inputs import glob_paths, read_class_names
from valohai_step.local import sample
from yolov3_tf2.data.record_files import RecordFiles
from yolov3_tf2.errors import InputError


def test_class_names_are_compared_in_one_form(tmp_path):
    path = tmp_path / "classes.txt"
    composed, decomposed = (
        unicodedata.normalize(form, "고양이 café") for form in ("NFC", "NFD")
    )
    assert composed != decomposed
    path.write_text(f" {decomposed}\n\ndog\t\n", encoding="utf-8")
    assert read_class_names(path) == [composed, "dog"]
    path.write_text(f"{decomposed}\n{composed}\n", encoding="utf-8")
    with pytest.raises(InputError, match=f"got {composed} more than once"):
        read_class_names(path)


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tgz", "tar.bz2", "tbz2", "txz"])
def test_a_tar_of_any_compression_is_unpacked(tmp_path, ending):
    path, mode = tmp_path / f"data.{ending}", ending.rpartition(".")[2]
    mode = {"tar": "", "tgz": "gz", "tbz2": "bz2", "txz": "xz"}.get(mode, mode)
    content = random.Random(0).randbytes(50_000)
    with tarfile.open(path, f"w:{mode}") as tar:
        member = tarfile.TarInfo("train/a.tfrecord")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    (file,) = inputs._extract_archive(path)
    assert file.name == "a.tfrecord" and file.read_bytes() == content
    path.write_bytes(path.read_bytes()[:20_000] + bytes(99))
    with pytest.raises(InputError, match=r"data\.\w.*: cannot be unpacked \("):
        inputs._extract_archive(path)


def test_a_path_comes_before_a_pattern(tmp_path):
    for name in ("a[1].jpg", "a1.jpg", "b.jpg"):
        (tmp_path / name).write_text(name)
    assert glob_paths(str(tmp_path / "a[1].jpg")) == [tmp_path / "a[1].jpg"]
    assert [path.name for path in glob_paths(str(tmp_path / "[ab]*.jpg"))] == [
        "a1.jpg",
        "a[1].jpg",
        "b.jpg",
    ]
    assert glob_paths(str(tmp_path / "c*")) == []


@pytest.fixture
def server():
    with serving() as running:
        yield running


@pytest.fixture
def give(tmp_path, monkeypatch):
    """Sets the command line of this process, whose downloads are kept apart."""
    monkeypatch.setattr(inputs, "DOWNLOADS", tmp_path / "downloads")
    monkeypatch.setattr(valohai.internals.global_state, "inputs", {})
    return lambda *arguments: monkeypatch.setattr("sys.argv", ["step.py", *arguments])


def test_the_files_of_a_model_may_be_addresses(server, give, files):
    urls = []
    for path in model_files(files / "model"):
        server.pages[f"/{path.name}"] = Page(path.read_bytes())
        urls.append(f"{server.url}/{path.name}")
    give("--model", *urls)
    from yolov3_tf2.network import checkpoint

    folder = inputs.input_folder("model", "model.json")
    assert checkpoint.read_model_info(folder).class_names == NAMES


def test_addresses_with_one_file_name_are_all_used(server, give):
    for folder in "ab":
        server.pages[f"/{folder}/images.bin"] = Page(folder.encode())
    give("--images", *(f"{server.url}/{folder}/images.bin" for folder in "ab"))
    paths = inputs.input_paths("images", folders=True)
    assert [path.read_bytes() for path in paths] == [b"a", b"b"]


def test_an_address_in_a_config_file(server, give, monkeypatch, tmp_path):
    config = {"classes": {"files": [{"name": "a.txt", "uri": f"{server.url}/a.txt"}]}}
    (tmp_path / "inputs.json").write_text(json.dumps(config))
    monkeypatch.setenv("VH_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("VH_INPUTS_DIR", str(tmp_path / "inputs"))
    give()
    for text in (b"circle\n", b"square and more\n"):
        server.pages["/a.txt"] = Page(text)
        valohai.internals.global_state_loader.load_global_state()
        (path,) = inputs.input_paths("classes")
        assert path.read_bytes() == text


@pytest.mark.parametrize("source", ["drawn", "shared"])
def test_a_changed_export_behind_one_address(
    server, checkout, run_script, tmp_path, source
):
    exports = SHARED / "cases" / "stale"
    if source == "drawn":
        exports = tmp_path / "exports"
        for version, num_train in (("v1", 3), ("v2", 7)):
            (exports / version).mkdir(parents=True)
            sample.write_export(exports / version, num_train, num_test=1)
    elif not exports.is_dir():
        pytest.skip(f"the cases are not here: no folder {exports}")
    for version, num_images in (("v1", 4), ("v2", 8)):
        arguments = []
        for name in ("images", "labels"):
            body = (exports / version / f"{name}.zip").read_bytes()
            server.pages[f"/{source}/{name}.zip"] = Page(body)
            arguments += [f"--{name}", f"{server.url}/{source}/{name}.zip"]
        process = run_script(
            "convert_superbai.py", *arguments, outputs=tmp_path / version, cwd=checkout
        )
        assert process.returncode == 0, process.stderr
        shards = sorted((tmp_path / version).rglob("*.tfrecord"))
        assert RecordFiles(shards).total == num_images
