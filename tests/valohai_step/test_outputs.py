"""Outputs that cannot be written: the message names the folder and the output."""

import errno
import os

import pytest

from valohai_step.outputs import outputs_folder, staged_outputs
from yolov3_tf2.errors import describe


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("VH_OUTPUTS_DIR", str(tmp_path / "outputs"))
    return tmp_path / "outputs"


def failure(number, *names):
    return OSError(number, os.strerror(number), *map(str, names))


def fail(write):
    """Returns the message of what `write` raises when it gets a staging folder."""
    with pytest.raises(OSError) as caught, staged_outputs() as folder:
        write(folder)
    assert ".partial" not in describe(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_the_file_that_the_error_names(outputs, number):
    def write(folder):
        raise failure(number, folder / "model" / "model.json")

    assert fail(write) == (
        f"outputs folder {outputs}: model/model.json cannot be written: "
        f"{os.strerror(number)}; free space or allow writing there, or set "
        "VH_OUTPUTS_DIR to another folder."
    )
    assert not outputs.exists()


def test_the_target_of_a_copy(outputs, tmp_path):
    def write(folder):
        # As shutil.copyfile does.
        error = failure(errno.ENOSPC, tmp_path / "input")
        error.filename2 = str(folder / "best.tf.index")
        raise error

    assert f"{outputs}: best.tf.index cannot be written: No space" in fail(write)


def test_an_open_file_that_cannot_grow(outputs):
    def write(folder):
        (folder / "classes.txt").write_text("a")
        os.utime(folder / "classes.txt", (1, 1))
        (folder / "train").mkdir()
        (folder / "train" / "a.tfrecord").write_text("b")
        raise failure(errno.ENOSPC)

    assert f"{outputs}: train/a.tfrecord cannot be written: No space" in fail(write)


def test_an_error_about_something_else_stays(outputs, tmp_path):
    def write(folder):
        raise failure(errno.EACCES, tmp_path / "image.jpg")

    assert fail(write) == f"[Errno 13] Permission denied: '{tmp_path / 'image.jpg'}'"


def test_a_folder_that_cannot_be_made(outputs):
    outputs.write_text("a file")
    message = f"outputs folder {outputs}: the folder cannot be written: "
    for make in (outputs_folder, staged_outputs().__enter__):
        with pytest.raises(OSError) as caught:
            make()
        assert str(caught.value).startswith(message)


def test_a_read_only_folder(outputs, monkeypatch):
    outputs.mkdir()
    outputs.chmod(0o555)
    if os.geteuid() == 0:  # Root may write everywhere.

        def refuse(prefix, dir):
            name = f"{dir}/{prefix}x7f3"
            raise PermissionError(errno.EACCES, "Permission denied", name)

        monkeypatch.setattr("tempfile.mkdtemp", refuse)
    message = f"outputs folder {outputs}: a file cannot be written: Permission denied"
    with pytest.raises(OSError) as caught, staged_outputs():
        pass
    assert str(caught.value).startswith(message)
