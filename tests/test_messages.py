"""Messages of all steps are one line each, whatever names are in them."""

import json
import logging
import pickle

import pytest
import suite_export
from steps import convert, refused
from suite_export import box, build, labelled

from superbai.export import Export
from superbai.upload import sdk
from superbai.upload.upload_plan import identify_all
from valohai_step import inputs, runtime
from yolov3_tf2.errors import InputError, collecting, describe, one_line, shorten
from yolov3_tf2.files import annotations, archives

# Line ends of all kinds, a sequence that clears a terminal, and a backslash.
EVIL = "a\nb\r\x85c\u2028d\x1b[2J\\e"
SHOWN = r"a\nb\r\x85c\u2028d\x1b[2J" + "\\e"


@pytest.mark.parametrize("kind", [InputError, sdk.SuiteError, sdk.RefusedError])
def test_the_message_of_an_error_is_one_line(kind):
    error = kind(f"{EVIL}  b: wrong")
    assert str(error) == describe(error) == f"{SHOWN}  b: wrong"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    messages = []
    with collecting(messages):
        raise error
    assert messages == [str(error)]


def test_other_texts_become_one_line():
    assert one_line("데이터 é  ‍.jpg") == "데이터 é  ‍.jpg"
    assert one_line("\udcff") == r"\udcff"
    assert describe(OSError(2, "No such file", EVIL)) == f"{SHOWN}: No such file"
    assert describe(OSError(5, "two\nlines")) == "two lines"
    assert shorten("two\n  lines \x1b[2J") == r"two lines \x1b[2J"


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("%s: %d", (EVIL, 1), f"{SHOWN}: 1"),
        ("%s", ("plain",), "plain"),
        ("\n%s\n%s", ("a table\n of rows", "b"), "\na table\n of rows\nb"),
    ],
)
def test_a_line_of_the_log_is_one_line_but_for_tables(text, values, expected):
    record = logging.LogRecord("absl", logging.INFO, "a.py", 1, text, values, None)
    assert runtime._StepFormatter().format(record) == expected
    record.levelno = logging.WARNING
    assert runtime._StepFormatter().format(record) == f"WARNING: {expected}"


def one_line_of(function, *arguments, **options):
    """The message of the `InputError` that a call raises, checked to be one line."""
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and "\x1b" not in message, message
    return message


def bend(images, labels, place):
    """Puts `EVIL` into a place of an export."""
    meta = labels[suite_export.meta_name("a.jpg")]
    if place in ("data_key", "dataset", "status"):
        meta[place] = EVIL
    elif place == "label_path":
        meta[place] = [EVIL]
    elif place == "class":
        classes = labels["project.json"]["object_detection"]["object_classes"]
        classes[0]["name"] = EVIL
    elif place == "object":
        thing = labels["labels/0.json"]["objects"][0]
        thing["class_name"] = thing["class_id"] = EVIL
    elif place == "type":
        labels["project.json"]["type"] = EVIL
    elif place == "image":
        images[f"ds/{EVIL}/a.jpg.jpg"] = images.pop("ds/a.jpg.jpg")[:99]
    else:
        labels[f"meta/ds/{EVIL}.json"] = b"{"


PLACES = ["data_key", "dataset", "status", "label_path", "class", "object", "type"]


@pytest.mark.parametrize("place", [*PLACES, "image", "meta"])
def test_an_error_about_an_export_is_one_line(tmp_path, place):
    images, labels = build([labelled("a.jpg", box(1, 2, 3, 4))])
    bend(images, labels, place)

    def read():
        with suite_export.open_export(tmp_path, images, labels) as export:
            for item in export.items:
                export.read(item)
            for _, reason in export.notes.unreadable:
                raise InputError(reason)

    assert one_line_of(read)


def test_an_error_about_a_folder_is_one_line(tmp_path):
    folder = tmp_path / "a\nb"
    folder.mkdir()
    (folder / "labels\n.zip").write_bytes(b"PK\x03\x04")
    (folder / "classes\n.txt").write_bytes(b"")
    (folder / "coco\n.json").write_text('{"images": [')
    one_line_of(archives.open_archive, folder / "labels\n.zip")
    one_line_of(Export, [folder], folder)
    one_line_of(inputs.read_class_names, folder / "classes\n.txt")
    one_line_of(annotations.read_annotations, [folder])
    image = annotations.AnnotatedImage(EVIL, None, (), EVIL)
    one_line_of(identify_all, [image], "")


def test_a_conversion_with_such_names(run_script, outputs, tmp_path):
    items = [
        labelled(f"{n}.jpg", box(9, 9, 20, 20), tags=[t])
        for n, t in enumerate(("train", "test"))
    ]
    images, labels = build(items)
    images[f"ds/{EVIL}.jpg"] = suite_export.encoded_image((1, 2, 3))
    images["line\nend.txt"] = b""
    paths = (
        suite_export.write_zip(tmp_path / "images\n.zip", images),
        suite_export.write_zip(tmp_path / "labels.zip", labels),
    )
    process = convert(run_script, outputs, *paths)
    assert process.returncode == 0, process.stderr
    shown = SHOWN.replace("\\e", "/e")  # As Windows separates folders.
    for line in (
        r"images: images\n.zip, 1.8 kB",
        f"left out: 1 image without a label (ds/{shown}.jpg)",
        r"left out: 1 file other than images (line\nend.txt)",
    ):
        assert line in process.stderr.splitlines(), process.stderr
    assert "\x1b[2J" not in process.stderr
    assert json.loads(process.stdout)["images_train"] == 1

    name = f"meta/ds/{EVIL}.json"
    labels[name] = labels.pop(suite_export.meta_name("0.jpg")) | {"data_key": EVIL}
    suite_export.write_zip(tmp_path / "labels.zip", labels)
    process = convert(run_script, tmp_path / "other", *paths)
    refused(process, tmp_path / "other", "data_key: expected one line of text", shown)
