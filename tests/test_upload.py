"""upload_superbai.py with both SDKs, against a local stand-in for the Suite."""

import csv
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import unicodedata
import venv
import zipfile

import numpy as np
import pytest
import suite_graphql
import tensorflow as tf
from leaks import leaks
from PIL import Image
from project import REPOSITORY
from suite_server import SuiteServer

from superbai.export import Export
from yolov3_tf2.data import records

CLASSES = (("car", "box"), ("사람", "box"), ("road", "polygon"))
WIDTH, HEIGHT = 64, 48
# Ways to write a text differ in what they make of these characters.
KEY = "k3y/0f+a=team%&'\"\\-0123456789"
SDKS = ("spb-cli", "superb-ai-label")
# Runs a script with other constants in superbai/upload/sdk.py, so that tests wait less.
HURRIED = (
    "import ast, runpy, sys; from superbai.upload import sdk; "
    "vars(sdk).update(ast.literal_eval(sys.argv[1])); del sys.argv[:2]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
NO_WAITS = {"RETRY_SECONDS": (0.1, 0.1), "FEW_RETRIES": 1}
# For tests that do not depend on the SDK.
one_sdk = pytest.mark.parametrize("sdk", SDKS[1:], indirect=True)


@pytest.fixture(scope="session", params=SDKS)
def sdk(request, tmp_path_factory):
    """Returns the Python of an environment with one SDK, installed as users do."""
    folder = tmp_path_factory.mktemp(request.param)
    lines = (REPOSITORY / "requirements/suite.txt").read_text().splitlines()
    # On this Python the file chooses one SDK; both are tested.
    chosen = [
        re.sub(r"; python_version [<>=]+ \"[\d.]+\"", "", line)
        for line in lines
        if not line.startswith(tuple(set(SDKS) - {request.param}))
    ]
    (folder / "requirements.txt").write_text("\n".join(chosen))
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "-qq", "-r", folder / "requirements.txt"],
        check=True,
    )
    return python


@pytest.fixture
def server():
    with SuiteServer(key=KEY) as server:
        server.add_project("P", CLASSES)
        yield server


@pytest.fixture
def upload(sdk, server, tmp_path):
    """Runs the step as users do; returns exit status, output and upload.json."""

    def run(*arguments, start=False, constants=None, **environment):
        facts = tmp_path / "outputs" / "upload.json"
        facts.unlink(missing_ok=True)
        script = [REPOSITORY / "upload_superbai.py"]
        if constants:
            script = ["-c", HURRIED, repr(constants), *script]
        clean = {
            k: v for k, v in os.environ.items() if not k.startswith(("VH_", "SPB_"))
        }
        process = subprocess.Popen(
            [sdk, *script, "--project=P", *map(str, arguments)],
            cwd=tmp_path,
            env={
                **clean,
                **server.environment(),
                "HOME": str(tmp_path),  # Where the SDK has its file.
                "VH_OUTPUTS_DIR": str(tmp_path / "outputs"),
                **({"PYTHONPATH": str(REPOSITORY)} if constants else {}),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if start:
            return process
        stdout, stderr = process.communicate(timeout=300)
        output = stdout + stderr
        assert "Traceback" not in output, output
        # No secrets: neither a form of the key nor the signature of an address.
        written = facts.read_text() if facts.is_file() else "null"
        for text in (output, written):
            assert not leaks(text, server.key) and "signature" not in text.lower(), text
        return process.returncode, output, json.loads(written)

    return run


def encode(size=(WIDTH, HEIGHT), **options):
    buffer = io.BytesIO()
    Image.new("RGB", size, (90, 120, 150)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def write_coco(path, boxes_by_name, size=(WIDTH, HEIGHT)):
    """Writes COCO JSON of a dict from names to lists of (class, xywh[, score])."""
    names = [name for name, _ in CLASSES[:2]]
    images, boxes = [], []
    for number, (name, objects) in enumerate(boxes_by_name.items(), start=1):
        image = {"id": number, "file_name": name, "width": size[0], "height": size[1]}
        images.append(image)
        for class_name, bbox, *score in objects:
            if class_name not in names:
                names.append(class_name)
            box = {"id": len(boxes) + 1, "image_id": number, "bbox": bbox}
            box["category_id"] = names.index(class_name) + 1
            boxes.append(box | ({"score": score[0]} if score else {}))
    categories = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
    value = {"images": images, "annotations": boxes, "categories": categories}
    path.write_text(json.dumps(value))
    return path


def boxes_of(label):
    return [
        (one["class_name"], tuple(one["annotation"]["coord"].values()))
        for one in label.objects
    ]


def write_many(folder, number, boxes_each):
    """Returns COCO JSON of random boxes, a zip of the images, and the boxes by name."""
    chance, truth = random.Random(0), {}
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for index in range(number):
            name = f"ds{index % 2}/sub/{index:05d}.jpg"
            archive.writestr(f"wrapper/{name}", encode())
            truth[name] = []
            for _ in range(boxes_each):
                x, y = chance.uniform(0, WIDTH - 9), chance.uniform(0, HEIGHT - 9)
                size = [chance.uniform(4, WIDTH - x), chance.uniform(4, HEIGHT - y)]
                truth[name].append((chance.choice(CLASSES[:2])[0], [x, y, *size]))
    return write_coco(folder / "many.json", truth), folder / "images.zip", truth


def counts(facts):
    return [facts[k] for k in ("created", "updated", "unchanged", "failed")]


WRITES = (
    "createAsset",
    "put-image",
    "updateLabelInfo",
    "put-info",
    "updateLabelTags",
    "updateLabelStatus",
)


def num_writes(server):
    return sum(server.counts[kind] for kind in WRITES)


@pytest.mark.slow
def test_many_images_there_and_back(upload, server, tmp_path, run_script):
    annotations, images, truth = write_many(tmp_path, 250, 9)
    arguments = ("--annotations", annotations, "--images", images)
    arguments += ("--upload_images=true", "--status=SUBMITTED", "--tag=first")
    # Slow enough that all threads overlap, even on a slow machine.
    server.fail("labels", "slow", times=16, seconds=0.5)
    status, output, facts = upload(*arguments)
    assert status == 0, output
    assert counts(facts) == [250, 0, 0, 0] and facts["not_done"] == 0
    assert "250 created, 0 updated, 0 unchanged, 0 failed" in output
    assert server.most_in_flight == 8
    metadata = [json.loads(line) for line in output.splitlines() if line[:1] == "{"]
    assert metadata[-1]["created"] == 250
    writes = num_writes(server)

    status, output, facts = upload(*arguments)
    assert status == 0 and counts(facts) == [0, 0, 250, 0]
    assert num_writes(server) == writes

    for label in server.labels.values():
        assert (label.status, label.tags) == ("SUBMITTED", ["first"])
    images, labels = server.export("P", tmp_path)
    with Export([images], labels) as export:
        found = {item.source_id: export.read(item) for item in export.items}
        names = export.class_names
    assert found.keys() == truth.keys()
    expected = {
        name: [(c, (x, y, x + width, y + height)) for c, (x, y, width, height) in boxes]
        for name, boxes in truth.items()
    }
    for name, record in found.items():
        assert [names[i] for i in record.labels] == [c for c, _ in expected[name]]
        for ours, (_, theirs) in zip(record.boxes_px, expected[name], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-6)

    process = run_script(
        "convert_superbai.py",
        *("--images", images, "--labels", labels),
        outputs=tmp_path / "converted",
    )
    assert process.returncode == 0, process.stderr
    num_records = 0
    for path in (tmp_path / "converted").glob("*/*.tfrecord"):
        for row in map(records.parse_example, tf.data.TFRecordDataset(str(path))):
            boxes = expected[row["source_id"].numpy().decode()]
            classes = [name.decode() for name in row["class_names"].numpy()]
            assert classes == [c for c, _ in boxes]
            # Fractions in float32.
            boxes_px = row["boxes"].numpy() * [WIDTH, HEIGHT, WIDTH, HEIGHT]
            np.testing.assert_allclose(boxes_px, [box for _, box in boxes], atol=1e-5)
            num_records += 1
    assert num_records == 250


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["put-image", "put-info", "updateLabelTags"])
def test_killed_in_the_middle_the_next_run_does_the_rest(
    upload, server, tmp_path, kind
):
    annotations, images, truth = write_many(tmp_path, 60, 3)
    arguments = ["--annotations", annotations, "--images", images, "--tag=test"]
    if kind == "put-image":
        arguments.append("--upload_images=true")
    else:
        for name in truth:
            server.add_asset("P", *name.split("/", 1), encode())

    def kill(request):
        if server.counts[kind] >= 25:
            process.send_signal(signal.SIGKILL)

    process = upload(*arguments, start=True)
    server.before_request = kill
    output = "".join(process.communicate())
    assert process.returncode == -signal.SIGKILL and not leaks(output, server.key)
    server.settle()
    done = sum(len(label.objects) == 3 for label in server.labels.values())
    assert 0 < done < 60 or kind == "put-image"
    server.before_request = None
    # An image that is registered without its bytes must be deleted in the Suite.
    without_bytes = [x for x in server.labels.values() if x.encoded is None]
    status, output, facts = upload(*arguments)
    assert len(without_bytes) <= 8 and facts["failed"] == len(without_bytes)
    assert status == (2 if without_bytes else 0), output
    for label in without_bytes:
        assert f"{label.dataset}/{label.key}: the Suite has its label, but" in output
        assert "delete it in the Suite and run again" in output
    for name, expected in truth.items():
        label = server.label("P", *name.split("/", 1))
        if label not in without_bytes:
            assert len(label.objects) == len(expected) and label.tags == ["test"]
            assert len({one["id"] for one in label.objects}) == 3
    assert counts(upload(*arguments)[2])[2] == 60 - len(without_bytes)


@pytest.mark.parametrize("failure", [429, 500, "drop", "drop-after", "limit"])
def test_what_fails_for_a_moment_is_tried_again(upload, server, tmp_path, failure):
    if failure == "drop-after":
        kinds = ("updateLabelInfo", "updateLabelTags", "put-info")
    elif failure == "limit":
        kinds = ("labels", "createAsset", "updateLabelInfo", "updateLabelTags")
    else:
        kinds = ("project", "labels", "put-image", "get-info", *WRITES)
    for kind in kinds:
        server.fail(kind, failure, after=kind not in ("project", "labels"))
    annotations, images, truth = write_many(tmp_path, 6, 2)
    status, output, facts = upload(
        *("--annotations", annotations, "--images", images),
        *("--upload_images=true", "--tag=t", "--status=SUBMITTED"),
    )
    assert status == 0, output
    assert counts(facts) == [6, 0, 0, 0]
    for name, expected in truth.items():
        label = server.label("P", *name.split("/", 1))
        assert label.encoded == encode() and label.status == "SUBMITTED"
        for (_, ours), (_, theirs) in zip(boxes_of(label), expected, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-9)


def test_addresses_that_expire_are_asked_for_again(upload, server, tmp_path):
    annotations, _, truth = write_many(tmp_path, 3, 2)
    for name in truth:
        server.add_asset("P", *name.split("/", 1), encode())
    server.fail("put-info", "expired", times=2)
    server.fail("get-info", "expired")
    status, output, facts = upload("--annotations", annotations)
    assert status == 0 and counts(facts) == [3, 0, 0, 0], output


@pytest.mark.slow
def test_one_failing_image_stops_no_other(upload, server, tmp_path):
    annotations, images, truth = write_many(tmp_path, 30, 2)
    bad = list(truth)[20]
    server.fail(lambda r: r.kind == "put-image" and r.name == bad, 403, times=None)
    arguments = ("--annotations", annotations, "--images", images)
    status, output, facts = upload(*arguments, "--upload_images=true")
    assert status == 2 and counts(facts) == [29, 0, 0, 1]
    assert f"failed: {bad}: cannot upload the image" in output and "403" in output
    assert [x["key"] for x in facts["pictures"] if x["result"] == "failed"] == [
        bad.partition("/")[2]
    ]
    server.recover()
    # Nothing is lost, and the failed image is not reported as done.
    status, output, facts = upload(*arguments, "--upload_images=true")
    assert status == 2 and counts(facts) == [0, 0, 29, 1]
    assert f"{bad}: the Suite has its label, but answers 404" in output


@pytest.mark.slow
def test_a_label_that_cannot_be_read_is_not_replaced(upload, server, tmp_path):
    annotations = write_coco(
        tmp_path / "c.json", {"ds/a.jpg": [("car", [1, 2, 3, 4])], "ds/b.jpg": []}
    )
    project = server.projects["P"]
    people = [project.object("car", "box", {"x": 1, "y": 1, "width": 9, "height": 9})]
    label = server.add_asset("P", "ds", "a.jpg", encode(), objects=people)
    server.add_asset("P", "ds", "b.jpg", encode())
    before = label.info
    server.fail(lambda r: (r.kind, r.key) == ("get-info", "a.jpg"), 403, times=None)
    status, output, facts = upload("--annotations", annotations, "--replace=all")
    assert status == 2 and counts(facts) == [0, 0, 1, 1], output
    assert label.info == before and "ds/a.jpg: cannot look up its label" in output


# A property that somebody has set on an object, as the Suite stores it.
PROPERTY = {
    "type": "radio",
    "property_id": "5b65d4ae-0000-4000-8000-000000000000",
    "property_name": "occluded",
    "option_id": "y",
    "option_name": "yes",
}


def people_objects(server):
    """Returns a box and a polygon drawn by people, with keys that the SDK drops."""
    project = server.projects["P"]
    box = project.object("car", "box", {"x": 5, "y": 5, "width": 20, "height": 20})
    points = [[[{"x": 0, "y": 0}, {"x": 9, "y": 0}, {"x": 9, "y": 9}]]]
    road = project.object("road", "polygon", {"points": points})
    box["annotation"]["meta"] = {"z_index": 7, "color": "#123456"}
    box["tracking_id"], box["of_the_future"] = "t-1", {"a": [1]}
    box["properties"] = [PROPERTY]
    return [box, road]


def edit_objects(label, edit):
    """Edits the objects of a label, as people do in the Suite."""
    info = json.loads(label.info)
    edit(info["result"]["objects"])
    label.info = json.dumps(info).encode()


@pytest.mark.parametrize("replace", ["ours", "all", "none"])
def test_people_and_earlier_uploads(upload, server, tmp_path, replace):
    people = people_objects(server)
    label = server.add_asset("P", "ds", "a.jpg", encode(), objects=people)
    first = {"ds/a.jpg": [("car", [1, 2, 3, 4], 0.9), ("사람", [2, 2, 9, 9], 0.4)]}
    annotations = write_coco(tmp_path / "one.json", first)
    arguments = ("--annotations", annotations, f"--replace={replace}")
    status, output, facts = upload(*arguments)
    assert status == 0, output
    sent = label.objects[2:] if replace == "ours" else label.objects
    if replace == "none":
        assert counts(facts) == [0, 0, 1, 0] and label.objects == people
        return
    assert counts(facts) == [0, 1, 0, 0]
    assert [one["annotation"]["coord"]["x"] for one in sent] == [1, 2]
    assert {one["annotation_type"] for one in sent} == {"box"}
    if replace == "ours":
        assert label.objects[:2] == people
    assert counts(upload(*arguments)[2]) == [0, 0, 1, 0]

    # From another model: one box is the same, one moved, one was corrected by somebody.
    edit_objects(label, lambda o: o[-1]["annotation"]["coord"].update(width=11.5))
    corrected = label.objects[-1]
    second = {"ds/a.jpg": [*first["ds/a.jpg"], ("car", [30, 30, 5, 5], 0.8)]}
    annotations = write_coco(tmp_path / "two.json", second)
    status, output, facts = upload("--annotations", annotations, arguments[2])
    assert status == 0 and counts(facts) == [0, 1, 0, 0], output
    if replace == "ours":
        assert label.objects[:2] == people and corrected in label.objects
        # The corrected box stays, and is not sent a second time.
        assert sorted(x for _, (x, *_) in boxes_of(label)[2:]) == [1, 2, 30]
    else:
        assert sorted(c for _, c in boxes_of(label)) == [
            (1, 2, 3, 4),
            (2, 2, 9, 9),
            (30, 30, 5, 5),
        ]
    third = write_coco(tmp_path / "three.json", {"ds/a.jpg": []})
    upload("--annotations", third, arguments[2])
    left = [*people, corrected] if replace == "ours" else []
    assert label.objects == left


def test_a_project_whose_objects_are_spelled_in_camel_case(upload, server, tmp_path):
    project = server.add_project("P", CLASSES, version="0.3.1")
    person = {
        "id": "818c5b2a-0d5a-4b0e-8b0e-0d5a4b0e8b0e",
        "classId": project.object("car", "box", {})["class_id"],
        "className": "car",
        "annotationType": "box",
        "annotation": {
            "coord": {"x": 1, "y": 1, "width": 9, "height": 9},
            "meta": {"zIndex": 1},
        },
        "properties": [],
    }
    label = server.add_asset("P", "ds", "a.jpg", encode(), objects=[person])
    boxes = {"ds/a.jpg": [("car", [1, 2, 3, 4]), ("사람", [5, 5, 5, 5])]}
    annotations = write_coco(tmp_path / "c.json", boxes)
    assert counts(upload("--annotations", annotations)[2]) == [0, 1, 0, 0]
    assert label.objects[0] == person
    assert [one["className"] for one in label.objects[1:]] == ["car", "사람"]
    assert counts(upload("--annotations", annotations)[2]) == [0, 0, 1, 0]


def test_a_label_without_objects_in_its_file(upload, server, tmp_path):
    labels = [server.add_asset("P", "ds", f"{i}.jpg", encode()) for i in range(4)]
    results = ({}, {"objects": None}, {"categories": {}}, None)
    for label, result in zip(labels, results, strict=True):
        label.info = json.dumps({"version": "0.6.5", "result": result}).encode()
    one = [("car", [1, 2, 3, 4])]
    names = {f"ds/{i}.jpg": one for i in range(4)}
    status, output, _ = upload("--annotations", write_coco(tmp_path / "c.json", names))
    assert status == 0, output
    assert all(boxes_of(label) == [("car", (1, 2, 3, 4))] for label in labels)


@one_sdk
def test_thresholds_datasets_and_a_dry_run(upload, server, tmp_path):
    label = server.add_asset("P", "photos", "x/a.jpg", encode())
    boxes = [
        ("car", [1, 2, 3, 4], 0.9),
        ("car", [5, 5, 3, 4], 0.2),
        ("car", [8, 8, 4, 4]),
    ]
    annotations = write_coco(tmp_path / "c.json", {"x/a.jpg": boxes})
    arguments = ["--annotations", annotations, "--score_threshold=0.5"]
    # Empty parameters as Valohai passes them.
    status, output, _ = upload(*arguments, "--dataset=", "--tag=")
    assert status == 2 and "x/a.jpg: the project does not have this image" in output
    arguments.append("--dataset=photos")
    status, output, facts = upload(*arguments, "--dry_run=true", "--tag=t")
    assert status == 0 and counts(facts) == [1, 0, 0, 0]
    assert "dry run, nothing was changed" in output and num_writes(server) == 0
    status, output, _ = upload(*arguments)
    assert status == 0 and [b[0] for _, b in boxes_of(label)] == [1, 8]
    assert "1 boxes below the score threshold" in output

    annotations = write_coco(tmp_path / "d.json", {"b.jpg": boxes})
    status, output, _ = upload("--annotations", annotations)
    assert status == 1 and "set --dataset" in output


@one_sdk
def test_tags_and_status(upload, server, tmp_path):
    names = {f"ds/{i}.jpg": [("car", [1, 2, 3, 4])] for i in range(3)}
    for index, status in enumerate(("WORKING", "SUBMITTED", "SKIPPED")):
        tags = ["of people"]
        server.add_asset("P", "ds", f"{index}.jpg", encode(), tags=tags, status=status)
    with (tmp_path / "review.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [
            ["rank", "file_name"],
            [1, "ds/2.jpg"],
            [2, "ds/0.jpg"],
            [3, "ds/1.jpg"],
        ]
        csv.writer(file).writerows(rows)
    annotations = write_coco(tmp_path / "c.json", names)
    arguments = ["--annotations", annotations, "--tag=test", "--review_images=2"]
    assert "expected review.csv" in upload(*arguments)[1]
    arguments += ["--review", tmp_path / "review.csv"]
    facts = upload(*arguments)[2]
    assert counts(facts) == [1, 2, 0, 0] and facts["reviewed"] == 2
    labels = list(server.labels.values())
    assert [sorted(label.tags) for label in labels] == [
        ["of people", "review", "test"],
        ["of people", "test"],
        ["of people", "review", "test"],
    ]
    assert [x.status for x in labels] == ["WORKING", "SUBMITTED", "SKIPPED"]
    # Submitted and skipped labels stay empty: somebody decided that nothing is there.
    assert [len(x.objects) for x in labels] == [1, 0, 0]
    # With a status they get the boxes. Labels that are right already keep their status.
    upload(*arguments, "--status=SUBMITTED")
    assert [x.status for x in labels] == ["SUBMITTED"] * 3
    assert [len(x.objects) for x in labels] == [1, 1, 1]
    labels[1].status = "SKIPPED"
    for status in ("SUBMITTED", "WORKING"):
        facts = upload(*arguments, f"--status={status}")[2]
        assert counts(facts) == [0, 0, 3, 0] and facts["reviewed"] == 0
        assert [x.status for x in labels] == ["SUBMITTED", "SKIPPED", "SUBMITTED"]
    # A label whose boxes change gets the status.
    changed = write_coco(tmp_path / "d.json", {"ds/2.jpg": [("car", [9, 9, 3, 4])]})
    upload("--annotations", changed, "--status=WORKING")
    assert [x.status for x in labels] == ["SUBMITTED", "SKIPPED", "WORKING"]


@one_sdk
def test_submitted_and_skipped_labels_are_not_changed(upload, server, tmp_path):
    truth = server.projects["P"].object(
        "car", "box", {"x": 1, "y": 1, "width": 9, "height": 9}
    )
    for number, status in enumerate(("SUBMITTED", "SKIPPED", "WORKING")):
        server.add_asset(
            *("P", "ds", f"{number}.jpg", encode()), objects=[truth], status=status
        )
    labels = list(server.labels.values())
    before = [label.info for label in labels]
    names = {f"ds/{i}.jpg": [("car", [1, 2, 3, 4])] for i in range(3)}
    arguments = ("--annotations", write_coco(tmp_path / "c.json", names))
    for dry_run in ("--dry_run=true", "--dry_run=false"):
        status, output, facts = upload(*arguments, dry_run)
        assert status == 0 and counts(facts) == [0, 1, 2, 0], output
        assert facts["reviewed"] == 2
        assert "2 labels are already submitted or skipped" in output
        assert [x["reason"] for x in facts["pictures"]] == ["reviewed"] * 2 + [""]
    assert [label.info for label in labels[:2]] == before[:2]
    assert len(labels[2].objects) == 2
    # none changes nothing; all replaces what people did.
    assert counts(upload(*arguments, "--replace=none")[2]) == [0, 0, 3, 0]
    assert counts(upload(*arguments, "--replace=all")[2]) == [0, 3, 0, 0]
    assert [len(label.objects) for label in labels] == [1, 1, 1]
    assert [x.status for x in labels] == ["SUBMITTED", "SKIPPED", "WORKING"]
    # Labels uploaded as submitted stay as they are too, even for a better model.
    better = {name: [("car", [2, 2, 3, 4])] for name in names}
    arguments = ("--annotations", write_coco(tmp_path / "d.json", better))
    assert counts(upload(*arguments)[2]) == [0, 1, 2, 0]
    assert counts(upload(*arguments, "--status=SUBMITTED")[2]) == [0, 3, 0, 0]
    assert [x.status for x in labels] == ["SUBMITTED"] * 3


@one_sdk
@pytest.mark.parametrize(
    "before, after", [("SUBMITTED", "WORKING"), ("SKIPPED", "SUBMITTED")]
)
def test_a_status_that_was_not_set_is_set_by_the_next_run(
    upload, server, tmp_path, before, after
):
    label = server.add_asset("P", "ds", "a.jpg", encode(), status=before)
    annotations = write_coco(tmp_path / "c.json", {"ds/a.jpg": [("car", [1, 2, 3, 4])]})
    arguments = ("--annotations", annotations, f"--status={after}")
    # Fail each changing request in turn, until no request is left to fail.
    kinds = ("updateLabelStatus", "updateLabelInfo")
    for number in range(4):
        server.recover()
        server.fail(lambda r: r.kind in kinds, "graphql-400", after=number)
        label.status, label.info = before, None
        status, output, facts = upload(*arguments)
        server.recover()
        if status == 0:
            break
        assert status == 2 and counts(facts) == [0, 0, 0, 1], output
        # New boxes never count as submitted or skipped.
        assert not label.objects or label.status == "WORKING"
        assert upload(*arguments)[0] == 0
        assert len(label.objects) == 1 and label.status == after
    requests = {"WORKING": 2, "SUBMITTED": 3}  # Both pass through WORKING.
    assert number == requests[after] and label.status == after
    assert len(label.objects) == 1


@one_sdk
def test_a_box_with_a_property_is_not_replaced(upload, server, tmp_path):
    label = server.add_asset("P", "ds", "a.jpg", encode())
    boxes = [("car", [1, 2, 3, 4]), ("car", [5, 5, 9, 9])]
    annotations = write_coco(tmp_path / "c.json", {"ds/a.jpg": boxes})
    upload("--annotations", annotations)
    edit_objects(label, lambda objects: objects[0]["properties"].append(PROPERTY))
    before = label.objects
    assert counts(upload("--annotations", annotations)[2]) == [0, 0, 1, 0]
    other = write_coco(tmp_path / "d.json", {"ds/a.jpg": [("car", [1, 2, 3, 4.5])]})
    assert counts(upload("--annotations", other)[2]) == [0, 1, 0, 0]
    assert label.objects[0] == before[0] and len(label.objects) == 2
    assert label.objects[1]["annotation"]["coord"]["height"] == 4.5


@one_sdk
def test_pascal_voc_and_a_turned_image(upload, server, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "turned.jpg").write_bytes(encode(exif=exif))
    (tmp_path / "turned.xml").write_text(
        "<annotation><filename>turned.jpg</filename><size><width>48</width>"
        "<height>64</height><depth>3</depth></size><object><name>car</name><bndbox>"
        "<xmin>3</xmin><ymin>5</ymin><xmax>20</xmax><ymax>60</ymax></bndbox></object>"
        "</annotation>"
    )
    status, output, facts = upload(
        *("--annotations", tmp_path / "turned.xml", "--dataset=voc"),
        *("--upload_images=true", "--images", tmp_path / "turned.jpg"),
    )
    assert status == 0 and counts(facts) == [1, 0, 0, 0], output
    (label,) = server.labels.values()
    assert boxes_of(label) == [("car", (2, 4, 18, 56))]
    sent = Image.open(io.BytesIO(label.encoded))
    assert sent.size == (48, 64) and not sent.getexif().get(0x0112)


@one_sdk
@pytest.mark.parametrize("unsafe", ['"', "\\", "\n", "\u2028", "\x7f"])
def test_names_that_break_the_suite(upload, server, tmp_path, unsafe):
    (tmp_path / "ds").mkdir()
    name = 'a"b.jpg' if unsafe == '"' else "good.jpg"
    (tmp_path / "ds" / name).write_bytes(encode())
    annotations = write_coco(tmp_path / "c.json", {name: []})
    dataset = f"d{unsafe}s" if unsafe != '"' else "ds"
    arguments = ("--annotations", annotations, "--images", tmp_path / "ds")
    arguments += ("--upload_images=true", f"--dataset={dataset}")
    for dry_run in ("--dry_run=true", "--dry_run=false"):
        status, output, facts = upload(*arguments, dry_run)
        assert status == 2 and counts(facts) == [0, 0, 0, 1], output
        (row,) = facts["pictures"]
        assert "the Suite's interface cannot handle the character" in row["reason"]
    assert not server.labels and not server.counts["invalid"]


@pytest.mark.parametrize(
    "prepare, message",
    [
        (lambda s: s.projects.clear(), "the Suite has no project of this name"),
        (
            lambda s: setattr(s, "unknown_project", "error") or s.projects.clear(),
            "cannot open project .* is it spelled as in the Suite",
        ),
        (
            lambda s: s.fail("project", "graphql-404"),
            "cannot open project .* is it spelled as in the Suite",
        ),
        (lambda s: s.add_project("P", CLASSES, workapp="video-siesta"), "video-siesta"),
        (lambda s: setattr(s, "key", "of-another") or None, ""),
        (lambda s: s.fail("project", 401), "SPB_ACCESS_KEY"),
        (lambda s: s.fail("project", 403), "SPB_ACCESS_KEY"),
    ],
)
def test_projects_that_cannot_be_used(upload, server, tmp_path, prepare, message):
    annotations = write_coco(
        tmp_path / "c.json",
        {"ds/a.jpg": [("car", [1, 2, 3, 4]), ("사람", [1, 2, 3, 4])]},
    )
    prepare(server)
    environment = {}
    if not message:
        environment = {"SPB_ACCESS_KEY": "wrong-key"}
        message = "refuses .* SPB_ACCESS_KEY"
    status, output, facts = upload("--annotations", annotations, **environment)
    assert status == 1 and facts is None, output
    (error,) = [x for x in output.splitlines() if x.startswith("error:")]
    assert re.search(message, error), error
    assert num_writes(server) == 0 and "wrong-key" not in output


def test_a_class_that_is_there_twice(upload, server, sdk, tmp_path):
    classes = [("car", "box"), ("car", "polygon")]
    server.add_project("P", classes)
    label = server.add_asset("P", "ds", "a.jpg", encode())
    annotations = write_coco(tmp_path / "c.json", {"ds/a.jpg": [("car", [1, 2, 3, 4])]})
    status, output, _ = upload("--annotations", annotations)
    if "spb-cli" in str(sdk):
        assert status == 1 and "spb-cli cannot tell them apart" in output
        assert not label.objects
    else:
        assert status == 0, output
        assert label.objects[0]["annotation_type"] == "box"


def test_credentials(upload, server, tmp_path):
    server.add_asset("P", "ds", "a.jpg", encode())
    annotations = write_coco(tmp_path / "c.json", {"ds/a.jpg": []})
    settings = {"SPB_TEAM_NAME": "", "SPB_ACCESS_KEY": ""}
    status, output, _ = upload("--annotations", annotations, **settings)
    assert status == 1 and "expected SPB_ACCESS_KEY and SPB_TEAM_NAME" in output
    settings = {"SPB_TEAM_NAME": "", "SPB_ACCOUNT_NAME": server.team}
    # A missing AWS profile must not matter.
    settings["AWS_PROFILE"] = settings["AWS_DEFAULT_PROFILE"] = "missing"
    status, output, _ = upload("--annotations", annotations, **settings)
    assert status == 0, output


def test_credentials_that_are_taken_away(upload, server, tmp_path):
    annotations, images, truth = write_many(tmp_path, 60, 1)
    for name in truth:
        server.add_asset("P", *name.split("/", 1), encode())
    server.fail("updateLabelInfo", 401, times=None, after=20)
    status, output, facts = upload("--annotations", annotations)
    assert status == 1 and "stopped with" in output and "SPB_ACCESS_KEY" in output
    assert facts["created"] == 20 and facts["not_done"] > 0
    server.recover()
    status, output, facts = upload("--annotations", annotations)
    assert status == 0 and counts(facts) == [40, 0, 20, 0]


@one_sdk
def test_the_upload_stops_when_everything_fails(upload, server, tmp_path):
    names = {f"ds/{i}.jpg": [] for i in range(100)}
    annotations = write_coco(tmp_path / "c.json", names)
    server.fail("labels", 503, times=None)
    status, output, facts = upload("--annotations", annotations, constants=NO_WAITS)
    assert status == 1 and "images failed in a row" in output
    assert 20 <= facts["failed"] < 40 and facts["not_done"] > 60
    assert "503" in facts["stopped"]
    assert output.count("failed: ") == 11  # Ten failures, and the number of the others.


@one_sdk
def test_failing_images_stop_no_others(upload, server, tmp_path):
    names = {f"ds/{i:03}.jpg": [("car", [1, 2, 3, 4])] for i in range(50)}
    for name in list(names)[40:]:
        server.add_asset("P", *name.split("/", 1), encode())
    annotations = write_coco(tmp_path / "c.json", names)
    status, output, facts = upload("--annotations", annotations)
    assert status == 2 and counts(facts) == [10, 0, 0, 40], output
    assert facts["not_done"] == 0 and facts["stopped"] == ""
    # Nor do items whose image is missing or of another size.
    (tmp_path / "ds").mkdir()
    for name in names:
        (tmp_path / name).write_bytes(encode((WIDTH, HEIGHT + 1)))
    (tmp_path / "ds" / "000.jpg").unlink()
    arguments = ("--upload_images=true", "--images", tmp_path / "ds")
    status, output, facts = upload("--annotations", annotations, *arguments)
    assert status == 2 and counts(facts) == [0, 0, 10, 40], output
    assert "ds/000.jpg: expected its file among the images" in output
    assert "is 64x49, but the annotations of ds/001.jpg are for 64x48" in output
    assert "export" not in output


@one_sdk
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_upload(upload, server, tmp_path, number):
    annotations, images, _ = write_many(tmp_path, 60, 1)
    arguments = ("--annotations", annotations, "--images", images)

    interrupted = threading.Lock()

    def interrupt(request):
        if server.counts["put-info"] == 10 and interrupted.acquire(blocking=False):
            process.send_signal(number)

    process = upload(*arguments, "--upload_images=true", start=True)
    server.before_request = interrupt
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number and "Traceback" not in stderr
    assert not leaks(stdout + stderr, server.key)
    assert all(label.encoded for label in server.labels.values())  # None is half done.
    facts = json.loads((tmp_path / "outputs" / "upload.json").read_text())
    assert facts["created"] == len(server.labels) and facts["failed"] == 0
    assert facts["not_done"] == 60 - facts["created"] > 0
    assert facts["stopped"] == "it was interrupted."
    assert f"stopped with {facts['not_done']} of 60 images left" in stderr
    assert f'"not_done": {facts["not_done"]}' in stdout
    server.before_request = None
    status, output, facts = upload(*arguments, "--upload_images=true")
    assert status == 0 and facts["created"] + facts["unchanged"] == 60, output


@one_sdk
def test_a_second_signal_stops_immediately(upload, server, tmp_path):
    for name in ("a.jpg", "b.jpg"):
        server.add_asset("P", "ds", name, encode())
    annotations = write_coco(tmp_path / "c.json", {"ds/a.jpg": [], "ds/b.jpg": []})
    server.fail(lambda r: (r.kind, r.key) == ("get-info", "a.jpg"), "slow", seconds=99)
    process = upload("--annotations", annotations, start=True)
    while server.counts["get-info"] != 2:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert any("interrupted: finishing" in line for line in process.stderr)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert not leaks(stderr, server.key)
    assert process.returncode == 128 + signal.SIGTERM, stderr
    facts = json.loads((tmp_path / "outputs" / "upload.json").read_text())
    assert counts(facts) in ([0, 0, 0, 0], [0, 0, 1, 0])  # b.jpg may be done by then.
    assert facts["not_done"] == 2 - facts["unchanged"]


def test_a_stalled_connection_times_out(upload, server, tmp_path):
    server.add_asset("P", "ds", "a.jpg", encode())
    annotations = write_coco(tmp_path / "c.json", {"ds/a.jpg": [("car", [1, 2, 3, 4])]})
    for kind in ("labels", "get-info", "updateLabelInfo", "put-info"):
        server.fail(kind, "slow", seconds=99)
    hurried = {"TIMEOUT": (1, 0.5), "RETRY_SECONDS": (0.1, 0.1)}
    status, output, facts = upload("--annotations", annotations, constants=hurried)
    assert status == 0 and counts(facts) == [1, 0, 0, 0], output
    server.fail("get-info", "slow", times=None, seconds=99)
    status, output, facts = upload("--annotations", annotations, constants=hurried)
    assert status == 2 and "cannot look up its label: 127.0.0.1" in output
    assert "does not answer (ReadTimeout" in output


def test_addresses_stay_secret_where_requests_fail(upload, server, tmp_path):
    (tmp_path / "ds").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "ds" / name).write_bytes(encode())
    server.add_asset("P", "ds", "a.jpg", encode())
    annotations = write_coco(tmp_path / "c.json", {"ds/a.jpg": [("car", [1, 2, 3, 4])]})
    # The fixture checks the output for secrets.
    server.fail("put-info", 503, times=None)
    hurried = {"RETRY_SECONDS": (), "FEW_RETRIES": 0}
    status, output, facts = upload("--annotations", annotations, constants=hurried)
    assert status == 2 and "cannot store its boxes" in output and "/info/" in output
    # Nothing listens at this address.
    server.recover()
    server.storage_url = "http://127.0.0.1:1"
    annotations = write_coco(tmp_path / "c.json", {"ds/b.jpg": [("car", [1, 2, 3, 4])]})
    arguments = ("--annotations", annotations, "--images", tmp_path / "ds")
    arguments += ("--upload_images=true",)
    status, output, facts = upload(*arguments, constants=hurried)
    assert status == 2 and "cannot upload the image" in output
    assert "the connection to 127.0.0.1:1 is refused" in output
    assert "delete the image in the Suite, where its file is missing" in output


@one_sdk
@pytest.mark.parametrize("kind, failure", [("get-info", 503), ("put-info", 429)])
def test_rate_limited_files_get_all_retries(upload, server, tmp_path, kind, failure):
    label = server.add_asset("P", "ds", "a.jpg", encode())
    annotations = write_coco(tmp_path / "c.json", {"ds/a.jpg": [("car", [1, 2, 3, 4])]})
    hurried = {"RETRY_SECONDS": (0.05,) * 6, "FEW_RETRIES": 0}
    server.fail(kind, failure, times=6)
    status, output, _ = upload("--annotations", annotations, constants=hurried)
    assert status == 0 and len(label.objects) == 1, output
    # An expired address gets fewer retries.
    server.recover()
    server.fail(kind, 403)
    label.info = None
    status, output, _ = upload("--annotations", annotations, constants=hurried)
    assert status == 2 and "403" in output


def test_answers_that_the_sdk_cannot_read(upload, server, tmp_path):
    names = {f"ds/{i}.jpg": [("car", [1, 2, 3, 4])] for i in range(5)}
    labels = [server.add_asset("P", *n.split("/"), encode()) for n in list(names)[:4]]
    # An object that is null; an error whose code is a word, here even the key.
    labels[0].info = json.dumps({"result": {"objects": [None]}}).encode()
    server.fail(
        lambda r: (r.kind, r.key) == ("updateLabelInfo", "1.jpg"),
        f"graphql-{server.key}",
    )
    answer = server._label_values
    server._label_values = lambda label: {
        **answer(label),
        **({"tags": None} if label.key == "2.jpg" else {}),
    }
    # An answer without a field that the SDK needs.
    create = server._create_asset

    def create_less(project, arguments):
        made = create(project, arguments)
        del made["presignedURL"]
        raise suite_graphql.Refused(200, {"data": {"createAsset": made}})

    server._create_asset = create_less
    (tmp_path / "ds").mkdir()
    for name in names:
        (tmp_path / name).write_bytes(encode())
    status, output, facts = upload(
        *("--annotations", write_coco(tmp_path / "c.json", names)),
        *("--upload_images=true", "--images", tmp_path / "ds"),
    )
    assert status == 2 and counts(facts) == [1, 0, 0, 4], output
    reasons = {x["key"]: x["reason"] for x in facts["pictures"]}
    assert "cannot read the objects of its label" in reasons["0.jpg"]
    assert "answers with the error 'Something went wrong'" in reasons["1.jpg"]
    assert "cannot read the Suite's answer: TypeError: " in reasons["2.jpg"]
    assert reasons["3.jpg"] == "" and len(labels[3].objects) == 1
    assert "ds/4.jpg: cannot register the image" in reasons["4.jpg"]


def test_bytes_that_the_suite_has_lost_are_noticed(upload, server, tmp_path):
    label = server.add_asset("P", "ds", "a.jpg", encode())
    annotations = write_coco(tmp_path / "c.json", {"ds/a.jpg": [("car", [1, 2, 3, 4])]})
    server.fail("put-info", "lose")
    status, output, _ = upload("--annotations", annotations)
    assert status == 0 and len(label.objects) == 1, output
    server.fail("put-info", "lose", times=None)
    label.info = None
    status, output, _ = upload("--annotations", annotations, constants=NO_WAITS)
    assert status == 2 and "the Suite holds other boxes than sent" in output


@one_sdk
def test_images_under_other_spellings_of_their_names(upload, server, tmp_path):
    apart = unicodedata.normalize("NFD", "사진")
    labels = [
        server.add_asset("P", "ds", "/a.jpg", encode()),
        server.add_asset("P", "ds", f"{apart}.jpg", encode()),
        server.add_asset("P", apart, f"/{apart}/b.jpg", encode()),
    ]
    names = ("ds/a.jpg", "ds/사진.jpg", "사진/사진/b.jpg")
    annotations = write_coco(
        tmp_path / "c.json", {n: [("car", [1, 2, 3, 4])] for n in names}
    )
    for name in names:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(encode())
    arguments = ("--annotations", annotations, "--images", tmp_path / "images")
    status, output, facts = upload(*arguments, "--upload_images=true")
    assert status == 0 and counts(facts) == [3, 0, 0, 0], output
    assert list(server.labels.values()) == labels and not server.counts["createAsset"]
    assert [len(label.objects) for label in labels] == [1, 1, 1]
    assert counts(upload(*arguments)[2]) == [0, 0, 3, 0]
    # If the Suite has both spellings, the exact name counts.
    exact = server.add_asset("P", "ds", "a.jpg", encode())
    assert counts(upload(*arguments)[2]) == [1, 0, 2, 0] and exact.objects
    # A dataset typed on a Mac.
    annotations = write_coco(tmp_path / "d.json", {"사진/사진/b.jpg": []})
    arguments = ("--annotations", annotations, f"--dataset={apart}")
    assert counts(upload(*arguments)[2])[3] == 0 and not labels[2].objects


@one_sdk
def test_another_image_of_the_same_file_name_is_not_sent(upload, server, tmp_path):
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "0001.jpg").write_bytes(encode())
    names = {"ds/train/0001.jpg": [("car", [1, 2, 3, 4])]}
    status, output, facts = upload(
        *("--annotations", write_coco(tmp_path / "c.json", names)),
        *("--upload_images=true", "--images", tmp_path / "val"),
    )
    assert status == 2 and counts(facts) == [0, 0, 0, 1] and not server.labels
    assert "ds/train/0001.jpg: expected its file among the images, got" in output


@one_sdk
def test_boxes_of_an_image_of_unknown_size(upload, server, tmp_path):
    labels = [server.add_asset("P", "ds", n, encode()) for n in ("a.jpg", "b.jpg")]
    (tmp_path / "ds").mkdir()
    (tmp_path / "ds" / "a.jpg").write_bytes(encode())
    boxes = [("car", [-50, -50, 500, 500]), ("car", [1, 2, 3, 4])]
    names = {"ds/a.jpg": boxes, "ds/b.jpg": boxes}
    annotations = write_coco(tmp_path / "c.json", names, size=(None, None))
    arguments = ("--annotations", annotations, "--images", tmp_path / "ds")
    status, output, _ = upload(*arguments)
    assert status == 0 and "1 images of unknown size" in output, output
    assert "1 boxes that reach out of an image of unknown size" in output
    assert boxes_of(labels[0]) == [
        ("car", (0, 0, WIDTH, HEIGHT)),
        ("car", (1, 2, 3, 4)),
    ]
    assert boxes_of(labels[1]) == [("car", (1, 2, 3, 4))]


@one_sdk
def test_an_image_that_the_suite_has_no_bytes_of(upload, server, tmp_path):
    (tmp_path / "ds").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "ds" / name).write_bytes(encode())
    empty = write_coco(tmp_path / "c.json", {"ds/sub/a.jpg": [("car", [1, 2, 3, 4])]})
    (tmp_path / "ds" / "sub").mkdir()
    (tmp_path / "ds" / "a.jpg").rename(tmp_path / "ds" / "sub" / "a.jpg")
    images = ("--upload_images=true", "--images", tmp_path / "ds")
    # The answer is lost, and with it the address, which the Suite returns only once.
    server.fail("createAsset", "drop-after")
    for _ in range(2):
        status, output, facts = upload("--annotations", empty, *images)
        assert status == 2 and counts(facts) == [0, 0, 0, 1], output
        assert "answers 404 for its image" in output
        assert "delete it in the Suite and run again" in output
    (label,) = server.labels.values()
    assert label.file_name == "a.jpg" and label.encoded is None
    # Boxes can be sent anyway. With people's, the label must no longer be deleted.
    assert counts(upload("--annotations", empty)[2]) == [1, 0, 0, 0]
    edit_objects(label, lambda objects: objects.append(people_box(server, 5, 5, 9, 9)))
    status, output, _ = upload("--annotations", empty, *images)
    assert status == 2 and "has objects of people, so keep it" in output
    assert "delete" not in output
    # A name that is taken, but that the project does not list.
    server.fail("createAsset", "graphql-409")
    other = write_coco(tmp_path / "d.json", {"ds/b.jpg": []})
    status, output, _ = upload("--annotations", other, *images)
    assert status == 2 and "ds/b.jpg: not uploaded" in output
    assert "is the name taken in another project" in output


@pytest.mark.parametrize("replace", ["ours", "all"])
def test_an_object_of_a_class_that_is_gone(upload, server, tmp_path, replace):
    project = server.projects["P"]
    coord = {"x": 1, "y": 1, "width": 9, "height": 9}
    gone = project.object("car", "box", coord, class_name="old")
    label = server.add_asset(
        "P", "ds", "a.jpg", encode(), objects=[gone], status="SUBMITTED"
    )
    annotations = write_coco(tmp_path / "c.json", {"ds/a.jpg": [("car", [1, 2, 3, 4])]})
    arguments = ("--annotations", annotations, "--status=WORKING")
    status, output, _ = upload(*arguments, f"--replace={replace}")
    if replace == "all":
        assert status == 0 and boxes_of(label) == [("car", (1, 2, 3, 4))]
        return
    assert status == 2 and "an object of class 'old' (box)" in output, output
    assert label.objects == [gone] and label.status == "SUBMITTED"


def test_class_names_that_are_spelled_in_two_ways(upload, server, tmp_path):
    apart = unicodedata.normalize("NFD", "사람")
    project = server.add_project("P", [("car ", "box"), (apart, "box")])
    label = server.add_asset("P", "ds", "a.jpg", encode())
    boxes = {"ds/a.jpg": [("car", [1, 2, 3, 4]), ("사람", [5, 5, 9, 9])]}
    annotations = write_coco(tmp_path / "c.json", boxes)
    status, output, facts = upload("--annotations", annotations)
    assert status == 0 and counts(facts) == [1, 0, 0, 0], output
    assert [one["class_name"] for one in label.objects] == ["car ", apart]
    assert counts(upload("--annotations", annotations)[2]) == [0, 0, 1, 0]
    # A person's box whose class is spelled in the other way is kept.
    coord = {"x": 1, "y": 1, "width": 9, "height": 9}
    theirs = project.object(apart, "box", coord, class_name="사람")
    label = server.add_asset("P", "ds", "b.jpg", encode(), objects=[theirs])
    annotations = write_coco(tmp_path / "b.json", {"ds/b.jpg": boxes["ds/a.jpg"]})
    status, output, facts = upload("--annotations", annotations)
    assert status == 0 and counts(facts) == [0, 1, 0, 0], output
    assert [one["class_name"] for one in label.objects] == [apart, "car ", apart]
    server.add_project("P", [("car ", "box"), ("car", "box"), ("사람", "box")])
    assert "several classes are named car" in upload("--annotations", annotations)[1]


@one_sdk
def test_a_review_csv_that_does_not_fit(upload, server, tmp_path):
    label = server.add_asset("P", "ds", "사진.jpg", encode())
    annotations = write_coco(tmp_path / "c.json", {"ds/사진.jpg": []})
    path = tmp_path / "review.csv"
    arguments = ("--annotations", annotations, "--review", path)
    text = "file_name,rank\nds/사진.jpg,1\nds/other.jpg,2\nds/third.jpg,3\n"
    path.write_text(text, encoding="cp949")
    status, output, _ = upload(*arguments, "--review_images=2")
    assert status == 1 and "expected a CSV file in UTF-8" in output and not label.tags
    path.write_text(text, encoding="utf-8-sig")
    status, output, _ = upload(*arguments, "--review_images=2")
    assert status == 0 and label.tags == ["review"], output
    assert "1 images of review.csv that are not in the annotations" in output


def test_without_an_sdk(tmp_path):
    annotations = write_coco(tmp_path / "c.json", {"ds/a.jpg": []})
    process = subprocess.run(
        [sys.executable, REPOSITORY / "upload_superbai.py", "--project=P"]
        + ["--annotations", annotations],
        env={**os.environ, "SPB_ACCESS_KEY": "k3y-of-a-team", "SPB_TEAM_NAME": "t"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert process.returncode == 1
    assert "requirements/suite.txt" in process.stderr


def people_box(server, *xywh, **others):
    coord = dict(zip(("x", "y", "width", "height"), xywh, strict=True))
    return server.projects["P"].object("car", "box", coord, **others)


def round_objects(digits):
    """Returns a function that stores objects as a Suite that rounds and re-orders."""

    def rewrite(objects):
        for one in objects:
            coord = one["annotation"].get("coord", {})
            if "x" in coord:
                rounded = {k: round(float(v), digits) for k, v in coord.items()}
                # Whole numbers without a decimal point, in another order.
                rounded = {k: int(v) if v == int(v) else v for k, v in rounded.items()}
                one["annotation"]["coord"] = dict(sorted(rounded.items()))
        return [dict(sorted(one.items())) for one in objects[::-1]]

    return rewrite


def check_three_models(upload, server, folder, number, digits):
    """Uploads boxes of three models to the same images; people work in between.

    At the end, each label must have the boxes of the last model and all of people's.
    """
    server.rewrite = round_objects(digits)
    chance, people, labels = random.Random(7), {}, {}
    names = [f"ds/{index:03}.jpg" for index in range(number)]
    for index, name in enumerate(names):
        drawn = [people_box(server, 4, 5, 50, 9)] if index % 2 else []
        labels[name] = server.add_asset("P", *name.split("/"), encode(), objects=drawn)
        people[name] = {one["id"]: one for one in drawn}
    for model in range(3):
        boxes = {}
        for name in names:
            places = [
                [chance.uniform(0, 30), chance.uniform(0, 20)]
                + [chance.uniform(3, 30), chance.uniform(3, 25)]
                for _ in range(3)
            ]
            boxes[name] = [(chance.choice(CLASSES[:2])[0], place) for place in places]
        annotations = write_coco(folder / f"{model}.json", boxes)
        status, output, facts = upload("--annotations", annotations)
        assert status == 0 and facts["stacked"] == [], output
        assert counts(facts)[2:] == [0, 0]
        if model == 2:
            facts = upload("--annotations", annotations)[2]
            assert counts(facts) == [0, 0, number, 0]
            break
        for index, name in enumerate(names):  # People correct some of the boxes.
            if index % 5 == model:
                info = json.loads(labels[name].info)
                ours = [
                    one
                    for one in info["result"]["objects"]
                    if one["id"] not in people[name]
                ]
                ours[0]["annotation"]["coord"]["x"] += 2
                other = "car" if ours[1]["class_name"] == "사람" else "사람"
                ours[1] |= {
                    key: server.projects["P"].object(other, "box", {})[key]
                    for key in ("class_name", "class_id")
                }
                people[name] |= {one["id"]: one for one in ours[:2]}
                info["result"]["objects"].reverse()
                labels[name].info = json.dumps(info).encode()
    for name, label in labels.items():
        stored = {one["id"]: one for one in label.objects}
        assert len(stored) == len(label.objects) == 3 + len(people[name])
        assert people[name].items() <= stored.items()
        sent = {key: one for key, one in stored.items() if key not in people[name]}
        coords = [one["annotation"]["coord"] for one in sent.values()]
        places = [[c["x"], c["y"], c["width"], c["height"]] for c in coords]
        expected = [[round(x, digits) for x in place] for _, place in boxes[name]]
        assert sorted(places) == sorted(expected)


# The other SDK is driven by the 200 images below.
@pytest.mark.parametrize("sdk", SDKS[:1], indirect=True)
def test_three_models_and_a_suite_of_whole_pixels(upload, server, tmp_path):
    check_three_models(upload, server, tmp_path, 10, digits=0)


@one_sdk
@pytest.mark.slow
def test_three_models_and_200_images(upload, server, tmp_path):
    check_three_models(upload, server, tmp_path, 200, digits=1)


@one_sdk
def test_a_suite_that_gives_boxes_other_ids(upload, server, tmp_path):
    def rewrite(objects):
        for one in objects:
            one["id"] = server.projects["P"].object("car", "box", {})["id"]
        return objects

    label = server.add_asset("P", "ds", "a.jpg", encode())
    boxes = [("car", [1.5, 2, 30, 24]), ("사람", [5, 5, 9, 9])]
    annotations = write_coco(tmp_path / "c.json", {"ds/a.jpg": boxes})
    server.rewrite = rewrite
    status, output, facts = upload("--annotations", annotations)
    assert status == 0 and counts(facts) == [1, 0, 0, 0], output
    assert facts["other_ids"] == 1 and facts["pictures"][0]["reason"] == "other ids"
    assert "stored the boxes of 1 labels under other ids" in output
    # They are found at their place, and not sent again.
    status, output, facts = upload("--annotations", annotations)
    assert counts(facts) == [0, 0, 1, 0] and len(label.objects) == 2
    # Of another model they are sent: those that are there may be people's.
    boxes = [("car", [2, 2.5, 30, 24]), ("사람", [5, 30, 9, 9])]
    better = write_coco(tmp_path / "d.json", {"ds/a.jpg": boxes})
    status, output, facts = upload("--annotations", better)
    assert status == 0 and len(label.objects) == 4
    assert facts["stacked"] == [{"dataset": "ds", "key": "a.jpg", "boxes": 2}]
    assert "1 labels have boxes that lie on another of their class" in output
    upload("--annotations", better, "--replace=all")
    assert len(label.objects) == 2


@one_sdk
def test_boxes_of_an_earlier_version_of_this_project(upload, server, tmp_path):
    project = server.projects["P"]
    label = server.add_asset("P", "street", "left/1.jpg", encode(), objects=[])
    box = {"x": 1, "y": 2.5, "width": 30, "height": 4}
    first = "05be7ba1-8264-5191-aedc-a01dd7b19e77"
    earlier = project.object("사람", "box", box, id=first)
    label.info = json.dumps({"result": {"objects": [earlier]}}).encode()
    boxes = {"street/left/1.jpg": [("사람", [1, 2.5, 30, 4])]}
    annotations = write_coco(tmp_path / "c.json", boxes)
    assert counts(upload("--annotations", annotations)[2]) == [0, 0, 1, 0]
    boxes = {"street/left/1.jpg": [("사람", [1, 2.5, 30, 7])]}
    annotations = write_coco(tmp_path / "d.json", boxes)
    assert counts(upload("--annotations", annotations)[2]) == [0, 1, 0, 0]
    assert boxes_of(label) == [("사람", (1, 2.5, 30, 7))]


@pytest.mark.parametrize("at", ["updateLabelInfo", "put-info of a failed try"])
def test_what_people_draw_meanwhile_is_kept(upload, server, tmp_path, at):
    """A person saves a label between the moments when it is read and written."""
    label = server.add_asset("P", "ds", "a.jpg", encode(), objects=[], size=(64, 48))
    drawn = people_box(server, 5, 5, 20, 20)

    def draw(request):
        kind = at.split()[0]
        if request.kind == kind and server.counts[kind] == 1:
            edit_objects(label, lambda objects: objects.append(drawn))
            label.tags.append("of a person")

    server.before_request = draw
    if at != "updateLabelInfo":
        server.fail("put-info", 503)
    annotations = write_coco(tmp_path / "c.json", {"ds/a.jpg": [("car", [1, 2, 3, 4])]})
    status, output, facts = upload("--annotations", annotations, "--tag=ours")
    assert status == 0 and counts(facts) == [1, 0, 0, 0], output
    assert [one["id"] for one in label.objects][:1] == [drawn["id"]]
    assert len(label.objects) == 2 and label.stats == [{"name": "car", "count": 2}]
    assert sorted(label.tags) == ["of a person", "ours"]
    server.before_request = None
    assert counts(upload("--annotations", annotations)[2]) == [0, 0, 1, 0]


@one_sdk
def test_a_label_that_is_submitted_meanwhile_is_kept(upload, server, tmp_path):
    label = server.add_asset("P", "ds", "a.jpg", encode(), objects=[])
    before = label.info

    def submit(request):
        if request.kind == "updateLabelInfo":
            label.status = "SUBMITTED"

    server.before_request = submit
    annotations = write_coco(tmp_path / "c.json", {"ds/a.jpg": [("car", [1, 2, 3, 4])]})
    status, output, facts = upload("--annotations", annotations)
    assert status == 0 and facts["reviewed"] == 1, output
    assert label.objects == [] and label.status == "SUBMITTED" and not label.stats
    assert json.loads(label.info)["meta"] == json.loads(before)["meta"]


@one_sdk
def test_a_label_that_is_changed_all_the_time(upload, server, tmp_path):
    label = server.add_asset("P", "ds", "a.jpg", encode(), objects=[])

    def draw(request):
        if request.kind == "updateLabelInfo":
            drawn = people_box(server, 5, 5, 20, 20)
            edit_objects(label, lambda objects: objects.append(drawn))

    server.before_request = draw
    annotations = write_coco(tmp_path / "c.json", {"ds/a.jpg": [("car", [1, 2, 3, 4])]})
    status, output, facts = upload("--annotations", annotations)
    assert status == 2 and "changed 5 times while this run tried" in output, output
    assert len(label.objects) == 5


@pytest.mark.parametrize("version", ["0.6.5", "0.3.1"])
def test_what_else_the_file_of_a_label_has_is_kept(upload, server, tmp_path, version):
    server.add_project("P", CLASSES, version=version)
    label = server.add_asset("P", "ds", "a.jpg", encode(), objects=[])
    drawn = people_box(server, 5, 5, 20, 20)
    names = ("image_info", "edit_info")
    if version == "0.3.1":
        names = ("imageInfo", "editInfo")
        for new, old in (("class_name", "className"), ("class_id", "classId")):
            drawn[old] = drawn.pop(new)
        drawn["annotationType"] = drawn.pop("annotation_type")
    state = {"id": drawn["id"], "color": "#123456", "visible": False, "selected": True}
    size = {"width": 64, "height": 48}
    stored = {
        "version": version,
        "meta": {names[0]: size, names[1]: {"objects": [state], "zoom": 3}, "x": 1},
        "result": {"objects": [drawn], "categories": {"properties": []}, "y": 2},
        "tags": {},
        "of_the_future": [1],
    }
    label.info = json.dumps(stored).encode()
    annotations = write_coco(tmp_path / "c.json", {"ds/a.jpg": [("car", [1, 2, 3, 4])]})
    assert counts(upload("--annotations", annotations)[2]) == [0, 1, 0, 0]
    written = json.loads(label.info)
    assert written["meta"][names[0]] == size and written["meta"]["x"] == 1
    edit_info = written["meta"][names[1]]
    assert edit_info["objects"][0] == state and edit_info["zoom"] == 3
    assert [one["id"] for one in edit_info["objects"]] == [
        one["id"] for one in label.objects
    ]
    assert label.objects[0] == drawn and written["of_the_future"] == [1]
    assert written["result"]["y"] == 2
    # Also after it is set to be empty.
    nothing = write_coco(tmp_path / "d.json", {"ds/a.jpg": []})
    upload("--annotations", nothing, "--replace=all")
    written = json.loads(label.info)
    assert written["meta"][names[0]] == size and label.objects == []
    assert written["meta"][names[1]]["objects"] == []


def test_an_empty_answer_for_a_label_with_objects(upload, server, tmp_path):
    names = [f"{number}.jpg" for number in range(4)]
    labels = [server.add_asset("P", "ds", name, encode()) for name in names]
    contents = ({}, {"result": {}}, {"result": None}, {"result": {"objects": []}})
    for label, content in zip(labels, contents, strict=True):
        label.info = json.dumps(content).encode()
        label.stats = [{"name": "car", "count": 2}]
    before = [label.info for label in labels]
    boxes = {f"ds/{name}": [("car", [1, 2, 3, 4])] for name in names}
    annotations = write_coco(tmp_path / "c.json", boxes)
    status, output, facts = upload("--annotations", annotations)
    assert status == 2 and counts(facts) == [1, 0, 0, 3], output
    assert [label.info for label in labels[:3]] == before[:3]
    for row in facts["pictures"][:3]:
        assert "the Suite counts 2 objects in its label, but its" in row["reason"]


@one_sdk
@pytest.mark.parametrize("place", ["environment", "file", "both"])
def test_a_key_with_a_line_end(upload, server, tmp_path, place):
    server.add_asset("P", "ds", "a.jpg", encode())
    annotations = write_coco(tmp_path / "c.json", {"ds/a.jpg": []})
    (tmp_path / ".spb").mkdir()
    text = f"[default]\nteam_name = team\naccess_key = {server.key}\n"
    (tmp_path / ".spb" / "config").write_text(text)
    environment = {"SPB_TEAM_NAME": "", "SPB_ACCESS_KEY": ""}
    if place != "file":
        environment = {"SPB_ACCESS_KEY": f"{server.key}\r"}
    status, output, _ = upload("--annotations", annotations, **environment)
    assert status == 0, output
    source = "/.spb/config, profile default" if place == "file" else "SPB_ACCESS_KEY"
    assert "credentials: " in output and source in output
    if place == "both":
        for broken in (f"{server.key}\r{server.key}", f"{server.key}é"):
            environment = {"SPB_ACCESS_KEY": broken}
            status, output, _ = upload("--annotations", annotations, **environment)
            (error,) = [x for x in output.splitlines() if x.startswith("error:")]
            assert status == 1 and error.startswith("error: SPB_ACCESS_KEY: expected")
    if place == "file":
        (tmp_path / ".spb" / "config").write_text(text.replace("access_key", "x ["))
        status, output, _ = upload("--annotations", annotations, **environment)
        assert status == 1 and "expected team_name and access_key under" in output


# A bug whose error shows the credentials, in a thread and in the log of a package.
LEAKING = """
import logging, os, runpy, sys
from superbai.upload import uploader
def write(self, item):
    credentials = self.project.credentials
    headers = {"X-API-KEY": credentials.key}
    logging.getLogger("urllib3.connectionpool").error("sent %s", headers)
    logging.getLogger("other").error("GET /a?X-Amz-Signature=5f5f5f %r", headers)
    raise RuntimeError(f"{headers} {list(credentials)!r} {credentials.key.encode()!r}")
uploader.Uploader._update_label = write
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@one_sdk
def test_a_bug_does_not_show_the_key(sdk, upload, server, tmp_path):
    server.add_asset("P", "ds", "a.jpg", encode())
    annotations = write_coco(tmp_path / "c.json", {"ds/a.jpg": []})
    process = subprocess.run(
        [sdk, "-c", LEAKING, REPOSITORY / "upload_superbai.py", "--project=P"]
        + ["--annotations", annotations],
        env={
            **os.environ,
            **server.environment(),
            "VH_OUTPUTS_DIR": str(tmp_path / "outputs"),
            "PYTHONPATH": str(REPOSITORY),
        },
        capture_output=True,
        text=True,
    )
    output = process.stdout + process.stderr
    written = (tmp_path / "outputs" / "upload.json").read_text()
    assert process.returncode == 1 and "Traceback" in output, output
    assert "RuntimeError: {'X-API-KEY': '…'}" in output and "5f5f5f" not in output
    assert "a bug in this program, RuntimeError" in written
    for text in (output, written):
        assert not leaks(text, server.key), text


@one_sdk
def test_a_redirect_does_not_get_the_key(upload, server, tmp_path):
    annotations = write_coco(tmp_path / "c.json", {"ds/a.jpg": []})
    for status in (302, 307):
        with SuiteServer() as other:
            address = f"{other.url}/login"
            server.fail("project", status, headers={"Location": address})
            status, output, _ = upload("--annotations", annotations)
            assert status == 1 and not other.log, output
        assert "is that the login page of a network" in output


@one_sdk
@pytest.mark.parametrize(
    ("prepare", "message", "most_requests"),
    [
        (
            lambda s: s.projects["P"].interface.pop("object_detection"),
            "project 'P': expected bounding-box classes, but it only classifies whole",
            1,
        ),
        (
            lambda s: s.add_project("P", [("car", "polygon")]),
            "classes of the project: car (polygon); the project has: none (only pol",
            1,
        ),
        (
            lambda s: s.add_project("P", [("사람", "box")]),
            "not bounding-box classes of the project: car; the project has: 사람. Add",
            1,
        ),
        (
            lambda s: s.add_project("P", CLASSES, workapp="image-default"),
            "expected the type image-siesta, got image-default",
            1,
        ),
        (
            lambda s: s.fail("project", "html", times=None),
            "answer is not JSON but begins with '<!DOCTYPE html><p>Please log in</p>'",
            3,
        ),
        (
            lambda s: s.fail("project", "graphql-error", times=None),
            "the Suite answers with the error 'Something went wrong'.",
            1,
        ),
        (lambda s: s.fail("project", 407, times=None), "asks for a login (407)", 1),
        (
            lambda s: s.fail("project", 429, times=9, headers={"Retry-After": "999"}),
            "(429), and asks to wait 999 seconds; run the same command again then.",
            1,
        ),
        (lambda s: s.fail("project", 503, times=None), "fails at the moment (503", 3),
        (lambda s: s.fail("project", 404, times=None), "refuses it (404 Client", 2),
    ],
)
def test_errors_say_what_it_is(
    upload, server, tmp_path, prepare, message, most_requests
):
    annotations = write_coco(tmp_path / "c.json", {"ds/a.jpg": [("car", [1, 2, 3, 4])]})
    prepare(server)
    status, output, _ = upload("--annotations", annotations, constants=NO_WAITS)
    (error,) = [x for x in output.splitlines() if x.startswith("error:")]
    assert status == 1 and message in error, error
    assert ("spelled as in the Suite" in error) == ("not found" in error)
    assert server.counts["project"] <= most_requests


@one_sdk
def test_no_connection_to_the_suite(upload, server, tmp_path):
    annotations = write_coco(tmp_path / "c.json", {"ds/a.jpg": []})
    for environment, message in (
        ({"SPB_APP_API_ENDPOINT": "http://127.0.0.1:1"}, "127.0.0.1:1 is refused"),
        (
            {"no_proxy": "", "http_proxy": "http://me:passw0rd@127.0.0.1:1"},
            "the proxy on the way to 127.0.0.1:",
        ),
        (
            {"SPB_APP_API_ENDPOINT": server.url.replace("http:", "https:")},
            "the certificate of 127.0.0.1:",
        ),
    ):
        status, output, _ = upload(
            "--annotations", annotations, constants=NO_WAITS, **environment
        )
        assert status == 1 and message in output, output
        assert "spelled" not in output and "passw0rd" not in output


def test_the_suite_says_how_long_to_wait(upload, server, tmp_path):
    label = server.add_asset("P", "ds", "a.jpg", encode())
    annotations = write_coco(tmp_path / "c.json", {"ds/a.jpg": [("car", [1, 2, 3, 4])]})
    times, kinds = [], ("labels", "put-info")
    for kind in kinds:
        server.fail(kind, 429, headers={"Retry-After": "2"})

    def note(request):
        if request.kind in kinds:
            times.append(time.monotonic())

    server.before_request = note
    status, output, _ = upload("--annotations", annotations, constants=NO_WAITS)
    assert status == 0 and len(label.objects) == 1, output
    # The fifth looks at the label after the write.
    assert len(times) == 5 and times[1] - times[0] >= 2 <= times[3] - times[2]


@one_sdk
def test_one_bad_name_fails_its_own_image(upload, server, tmp_path):
    good = server.add_asset("P", "ds", "a.jpg", encode())
    box = [("car", [1, 2, 3, 4])]
    names = ("ds/a.jpg", "no-folder.jpg", "ds/\ud800.jpg", f"ds/{'x' * 300}.jpg")
    (tmp_path / "ds").mkdir()
    (tmp_path / "ds" / "a.jpg").write_bytes(encode())
    status, output, facts = upload(
        *("--annotations", write_coco(tmp_path / "c.json", dict.fromkeys(names, box))),
        *("--upload_images=true", "--images", tmp_path / "ds"),
    )
    assert status == 2 and counts(facts) == [1, 0, 0, 3], output
    assert len(good.objects) == 1
    reasons = [row["reason"] for row in facts["pictures"]]
    assert "'no-folder.jpg' is unknown" in reasons[1]
    assert "expected a file name of up to 255 bytes, got 304" in reasons[2]
    assert "image 3: file_name: expected one line of text, got 'ds/" in reasons[3]


@one_sdk
def test_images_without_bytes_are_listed(upload, server, tmp_path):
    (tmp_path / "ds").mkdir()
    names = [f"ds/{number}.jpg" for number in range(4)]
    for name in names:
        (tmp_path / name).write_bytes(encode())
    annotations = write_coco(tmp_path / "c.json", dict.fromkeys(names, []))
    arguments = ("--annotations", annotations, "--images", tmp_path / "ds")
    arguments += ("--upload_images=true",)
    lost = [{"dataset": "ds", "key": key} for key in ("1.jpg", "2.jpg")]
    keys = [row["key"] for row in lost]
    server.fail(lambda r: r.kind == "put-image" and r.key in keys, 403, times=None)
    status, output, facts = upload(*arguments, constants=NO_WAITS)
    assert status == 2 and facts["without_bytes"] == lost, output
    assert "names of 2 images but not their bytes; without_bytes" in output
    assert '"without_bytes": 2' in output
    server.recover()
    # A run that changes nothing finds them all.
    writes = num_writes(server)
    status, output, facts = upload(*arguments, "--dry_run=true")
    assert status == 2 and facts["without_bytes"] == lost
    assert num_writes(server) == writes
    for key in keys:
        del server.labels[server._by_key.pop(("P", "ds", key)).id]
    status, output, facts = upload(*arguments)
    assert status == 0 and facts["without_bytes"] == [], output
    assert all(label.encoded == encode() for label in server.labels.values())


@one_sdk
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_registered_is_finished_before_a_stop(upload, server, tmp_path, number):
    """The bytes fail just when the run is to stop, and are sent again all the same."""
    annotations, images, _ = write_many(tmp_path, 30, 1)
    server.fail("put-image", 503, times=12)
    interrupted = threading.Lock()

    def interrupt(request):
        if request.kind == "put-image" and interrupted.acquire(blocking=False):
            process.send_signal(number)
            time.sleep(0.3)

    process = upload(
        *("--annotations", annotations, "--images", images, "--upload_images=true"),
        start=True,
        constants={"RETRY_SECONDS": (0.5,) * 4},
    )
    server.before_request = interrupt
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number, stderr
    assert not leaks(stdout + stderr, server.key)
    assert 0 < len(server.labels) <= 8  # No image is registered after the signal.
    assert all(label.encoded for label in server.labels.values())
    facts = json.loads((tmp_path / "outputs" / "upload.json").read_text())
    assert facts["failed"] == 0 and facts["without_bytes"] == []
    assert facts["created"] == len(server.labels) == 30 - facts["not_done"]
