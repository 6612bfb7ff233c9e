"""Inputs from the latest local outputs: which run they are taken from."""

import os

import pytest

from valohai_step import local_outputs

EPOCHS = iter(range(1_000_000_000, 2_000_000_000))


@pytest.fixture
def write_run(tmp_path, monkeypatch):
    """Writes the outputs of a step in a run that is newer than the last one."""
    outputs = tmp_path / "outputs"
    monkeypatch.setattr(local_outputs, "OUTPUTS", (outputs,))
    monkeypatch.setattr(local_outputs, "_folder_by_input", {})

    def write(run, *names, step="convert-superbai"):
        time = next(EPOCHS)
        for name in names:
            path = outputs / run / step / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(run)
            os.utime(path, (time, time))

    return write


SPLITS = ("classes.txt", "train/a.tfrecord", "test/b.tfrecord")


def take(name, optional=False, step="train"):
    """The runs that the files of an input are taken from."""
    paths = local_outputs.find_newest_outputs(step, name, optional)
    return [path.read_text() for path in paths]


def test_the_validation_images_of_the_same_run_are_taken(write_run):
    write_run("old", *SPLITS, "validation/c.tfrecord")
    write_run("new", *SPLITS, "validation/c.tfrecord", "validation/d.tfrecord")
    for name in ("classes", "train", "test"):
        assert take(name) == ["new"]
    assert take("validation", optional=True) == ["new", "new"]


def test_the_validation_images_of_an_older_run_are_not_taken(write_run):
    write_run("old", *SPLITS, "validation/c.tfrecord")
    write_run("new", *SPLITS)
    for name in ("classes", "train", "test"):
        assert take(name) == ["new"]
    assert take("validation", optional=True) == []


@pytest.mark.parametrize("taken", [[], ["classes"], ["classes", "test"]])
def test_they_are_not_taken_for_other_training_images(write_run, taken):
    write_run("new", *SPLITS, "validation/c.tfrecord")
    for name in taken:  # The others were given by the user.
        take(name)
    assert take("validation", optional=True) == []


def test_splits_of_two_runs_have_no_validation_images(write_run):
    write_run("old", *SPLITS, "validation/c.tfrecord")
    write_run("new", "train/a.tfrecord", "validation/c.tfrecord")
    assert [take(name) for name in ("classes", "train", "test")] == [
        ["old"],
        ["new"],
        ["old"],
    ]
    assert take("validation", optional=True) == []


def test_class_names_belong_to_the_images_of_detect(write_run):
    write_run("run", *SPLITS)
    assert take("classes", optional=True, step="detect") == []
    assert take("image", step="detect") == ["run"]
    assert take("classes", optional=True, step="detect") == ["run"]
