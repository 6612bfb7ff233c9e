"""What upload_superbai.py checks before it opens a project, without the SDK."""

import json
import sys

import pytest
from absl import logging

import upload_superbai
from superbai.upload.upload_report import make_report
from yolov3_tf2.errors import InputError


class OpenedError(Exception):
    """The project would have been opened now."""


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the step up to where it opens the project; returns its warnings."""

    def open_project(name):
        raise OpenedError(name)

    path = tmp_path / "c.json"
    names = {"images": [], "annotations": [], "categories": []}
    names["images"].append({"id": 1, "file_name": "ds/a.jpg", "width": 9, "height": 9})
    path.write_text(json.dumps(names))
    monkeypatch.setattr(upload_superbai, "Project", open_project)
    monkeypatch.setenv("VH_OUTPUTS_DIR", str(tmp_path / "outputs"))
    for name in ("SUPERB_AI_API_KEY", "SUPERB_AI_TENANT"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments):
        warnings = []
        monkeypatch.setattr(
            logging, "warning", lambda text, *a: warnings.append(text % a)
        )
        argv = ["upload_superbai.py", "--project=P", "--annotations", str(path)]
        monkeypatch.setattr(sys, "argv", [*argv, *map(str, arguments)])
        with pytest.raises(OpenedError):
            upload_superbai.main()
        return warnings

    return run


def test_outputs_that_cannot_be_written_are_found_first(run, tmp_path):
    assert run() == [] and not (tmp_path / "outputs").exists()
    (tmp_path / "outputs").write_text("a file")
    with pytest.raises(OSError, match="outputs folder .*outputs: .*cannot be written"):
        run()


@pytest.mark.parametrize("name", ["project", "dataset", "tag"])
def test_texts_that_are_not_utf_8(run, name):
    with pytest.raises(
        InputError, match=rf"^--{name}: expected text in UTF-8, got '.ud"
    ):
        run(f"--{name}=\udcff")


def test_a_review_csv_without_images(run, tmp_path):
    path = tmp_path / "review.csv"
    path.write_text("rank,file_name\n")
    (warning,) = run("--review", path, "--review_images=5")
    assert warning == f"{path}: no images, so none gets a tag"


def test_upload_json_of_half_a_character(run, tmp_path):
    values = {"project": "P\ud800", "dry_run": False}
    upload_superbai.write_report(make_report(values, [], [], "", str))
    text = (tmp_path / "outputs" / "upload.json").read_text(encoding="utf-8")
    assert json.loads(text)["project"] == "P\ud800"
