"""upload_superbai.py and Superb AI's new platform, against a local stand-in for it."""

import json
import re
import subprocess
import sys
import time
from queue import SimpleQueue
from threading import Event

import platform_server
import pytest
from platform_server import PlatformServer
from project import REPOSITORY

from superbai.platform import platform_api, platform_plan
from superbai.platform.platform_api import PlatformApi
from superbai.platform.platform_assets import AssetIndex
from superbai.platform.platform_credentials import Credentials
from superbai.platform.platform_project import PlatformProject
from superbai.platform.platform_upload import Sender
from superbai.upload import upload_plan
from yolov3_tf2.files import annotations

SIZE = (640, 480)
NAMES = ["valve", "gauge"]


@pytest.fixture
def server():
    with PlatformServer() as server:
        server.add_project("Yard", NAMES)
        yield server


@pytest.fixture
def yard(server):
    return server.projects[0]


@pytest.fixture
def upload(run_script, server, tmp_path):
    """Runs the step as users do; returns exit status, output and upload.json."""
    outputs = tmp_path / "outputs"

    def run(path, *arguments, **environment):
        (outputs / "upload.json").unlink(missing_ok=True)
        process = run_script(
            "upload_superbai.py",
            *("--project=Yard", f"--annotations={path}", *arguments),
            outputs=outputs,
            **{**server.environment(), **environment},
        )
        output = process.stdout + process.stderr
        assert server.key not in output and "Traceback" not in output, output
        facts = None
        if (outputs / "upload.json").is_file():
            facts = json.loads((outputs / "upload.json").read_text())
        return process.returncode, output, facts

    return run


def write_coco(path, boxes_by_name, size=SIZE):
    """Writes detections of a dict from names to lists of (class, xywh, score)."""
    images, annotations = [], []
    for name, boxes in boxes_by_name.items():
        images.append(
            {"id": len(images), "file_name": name, "width": size[0], "height": size[1]}
        )
        annotations += [
            {
                "id": len(annotations) + number,
                "image_id": images[-1]["id"],
                "category_id": NAMES.index(class_name),
                "bbox": list(xywh),
                "score": score,
            }
            for number, (class_name, xywh, score) in enumerate(boxes)
        ]
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))
    return path


def results(facts):
    return {row["key"]: (row["result"], row["reason"]) for row in facts["pictures"]}


class Bar:
    def update(self, number=1):
        pass


@pytest.fixture
def send(server, tmp_path, monkeypatch):
    """Sends boxes as the step does, in this process.

    Returns the outcomes, pairs of result and reason, by name; those of a run that ended
    early have "end".
    """
    monkeypatch.setattr(platform_api, "RETRY_SECONDS", (0.01, 0.01))

    def run(boxes_by_name, *, tag="", replace="ours"):
        path = write_coco(tmp_path / "detections.json", boxes_by_name)
        images, skip_counts = annotations.read_annotations([path])
        api = PlatformApi(Credentials(server.url, server.tenant, server.key))
        project = PlatformProject(api, "Yard")
        assets = AssetIndex(project.read_assets())
        items = upload_plan.make_items(
            images,
            [("", image.name) for image in images],
            problems={},
            find_size=assets.find_size,
            score_threshold=0,
            tag=tag,
            review_names=set(),
            skip_counts=skip_counts,
        )
        sender = Sender(project, items, replace=replace, dry_run=False)
        ended_by = sender.send_all(assets, SimpleQueue(), Bar())
        found = {
            item.key: outcome[:2]
            for item, outcome in zip(items, sender.outcomes, strict=True)
            if outcome
        }
        return {**found, "end": ended_by} if ended_by else found

    return run


def test_boxes_become_labels_of_a_model(upload, server, yard, tmp_path):
    north = yard.add_asset("north.jpg", size=SIZE)
    drawn = north.draw("gauge", (300, 300, 20, 20))
    other = north.draw("gauge", (200, 200, 20, 20), source="model")
    yard.add_asset("south.jpg", size=SIZE)
    path = write_coco(
        tmp_path / "detections.json",
        {
            "cam/north.jpg": [
                ("valve", (12.5, 30, 100, 40.25), 0.9),
                ("valve", (12.5, 30, 100, 40.25), 0.1),
            ],
            "cam/south.jpg": [("gauge", (1, 2, 3, 4), 0.8)],
            "cam/done.jpg": [("gauge", (1, 2, 3, 4), 0.8)],
        },
    )
    yard.add_asset("done.jpg", size=SIZE, status="done")
    arguments = "--score_threshold=0.5", "--tag=new"
    _, output, facts = upload(path, *arguments, "--dry_run=true")
    assert facts["created"] == 1 and "dry run, nothing was changed" in output
    assert not any(kind.startswith("POST") for kind in server.counts)
    status, output, facts = upload(path, *arguments)
    assert status == 0, output
    assert results(facts)["cam/done.jpg"] == ("updated", "reviewed")
    assert "1 labels are already" in output and "reopen them on the platf" in output
    assert (facts["created"], facts["updated"], facts["not_done"]) == (1, 2, 0)
    assert "2 boxes of people or other models stay" in output
    assert north.boxes("manual") == [("gauge", 300, 300, 20, 20)]
    assert ("valve", 12.5, 30, 100, 40.25) in north.boxes("model")
    # Those of other models and of people stay as they were.
    assert north.annotations[drawn["id"]] == drawn
    assert north.annotations[other["id"]] == other
    assert yard.asset("south.jpg").boxes("model") == [("gauge", 1, 2, 3, 4)]
    assert all(asset.tags == ["new"] for asset in yard.assets)
    before = [dict(asset.annotations) for asset in yard.assets]
    server.counts.clear()
    status, output, facts = upload(path, *arguments)
    assert facts["unchanged"] == 3 and status == 0
    assert [dict(asset.annotations) for asset in yard.assets] == before
    assert not any(kind.startswith("POST") for kind in server.counts)


@pytest.mark.parametrize("decimals", [1, 0])
def test_three_models_leave_the_boxes_of_the_last(send, server, yard, decimals):
    server.decimals = decimals
    for number in range(200):
        asset = yard.add_asset(f"{number}.jpg", size=SIZE)
        asset.draw("gauge", (number, 5, 30, 30))
    for model in range(3):
        boxes = {
            f"{number}.jpg": [
                ("valve", (10.06 + 40 * n + model * 5, 20.55, 30.3, 9.97), 0.9)
                for n in range(8 - model)
            ]
            for number in range(200)
        }
        assert set(send(boxes).values()) == {("updated", "")}
    for number, asset in enumerate(yard.assets):
        assert asset.boxes("manual") == [("gauge", number, 5, 30, 30)]
        lefts = [left for _, left, *_ in asset.boxes("model")]
        assert lefts == pytest.approx([20.06 + 40 * n for n in range(6)], abs=0.51)
    assert max(server.rows) <= 1000 and sum(server.rows) == 200 * (8 + 7 + 6)
    # Batches, not images: 800, 700 and 600 rows for each hundred of images, and the
    # first image of each run alone.
    assert server.counts["POST batch-create"] == 6 + 3
    assert set(send(boxes).values()) == {("unchanged", "")}


def test_what_people_did_to_boxes_of_a_model_stays(send, yard):
    north = yard.add_asset("north.jpg", size=SIZE)
    boxes = [("valve", (10 + 60 * n, 20, 50, 40), 0.9) for n in range(6)]
    send({"north.jpg": boxes})
    ours = sorted(north.annotations.values(), key=lambda a: a["geometry"]["x"])
    ours[0]["geometry"]["x"] += 5
    ours[1]["class_id"] = yard.class_ids["gauge"]
    ours[2]["locked"] = True
    ours[3]["data"] = {"occluded": "y"}
    ours[4]["source"] = "manual"
    edited = {each["id"]: dict(each) for each in ours[:5]}
    # The same boxes are not sent again beside the corrected ones.
    assert send({"north.jpg": boxes}) == {"north.jpg": ("unchanged", "")}
    new = {"north.jpg": [("valve", (9, 99, 9, 9), 0.9)]}
    assert send(new, replace="none") == {"north.jpg": ("unchanged", "")}
    assert send(new) == {"north.jpg": ("updated", "")}
    assert ours[5]["id"] not in north.annotations and len(north.annotations) == 6
    assert {i: a for i, a in north.annotations.items() if i in edited} == edited


@pytest.mark.parametrize("state", ["in_review", "done", "skipped"])
def test_decided_images_keep_their_boxes(send, yard, state):
    yard.add_asset("north.jpg", size=SIZE, status=state)
    yard.add_asset("south.jpg", size=SIZE, status="in_progress")
    boxes = [("valve", (1, 2, 3, 4), 0.9)]
    assert send({"north.jpg": boxes, "south.jpg": boxes}) == {
        "north.jpg": ("unchanged", "reviewed"),
        "south.jpg": ("created", ""),
    }
    assert not yard.asset("north.jpg").annotations


def test_whose_image_it_is(send, yard):
    twins = [yard.add_asset("twin.jpg", size=SIZE) for _ in range(2)]
    yard.add_asset("one.jpg", size=SIZE)
    yard.add_asset("other.jpg", size=(480, 640))
    yard.add_asset("unknown-size.jpg")
    yard.add_asset("b/c.jpg", size=SIZE)
    yard.add_asset("c.jpg", size=SIZE)
    boxes = [("valve", (1, 2, 3, 4), 0.9)]
    names = (
        f"Yard/{twins[1].id}/twin.jpg",
        "twin.jpg",
        "cam1/one.jpg",
        "cam2/one.jpg",
        "other.jpg",
        "unknown-size.jpg",
        "a/b/c.jpg",
        "missing.jpg",
    )
    found = send(dict.fromkeys(names, boxes))
    failed = {
        "twin.jpg": "the project has 2 images of this name",
        "cam1/one.jpg": "one image 'one.jpg' for these 2",
        "cam2/one.jpg": "one image 'one.jpg' for these 2",
        "other.jpg": "expected annotations for 480x640, the size of 'other.jpg'",
        "missing.jpg": "the project does not have this image; add it on the platform",
    }
    for name in names:
        if name in failed:
            assert found[name][0] == "failed" and failed[name] in found[name][1]
        else:
            assert found[name] == ("created", "")
    assert len(twins[1].annotations) == 1 and not twins[0].annotations
    assert yard.asset("b/c.jpg").annotations and not yard.asset("c.jpg").annotations


def test_one_bad_row_fails_its_own_image(send, server, yard):
    names = [f"{number}.jpg" for number in range(150)]
    for name in names:
        yard.add_asset(name, size=SIZE)
    boxes = {name: [("valve", (1, 2, 3, 4), 0.9)] * 3 for name in names}
    boxes["7.jpg"] = [("gauge", (1, 2, 3, 4), 0.9)]
    # The class allows boxes when the upload starts, and forbids them later.
    server.on_request = lambda method, path, body: (
        path.endswith("batch-create")
        and yard.classes[1].update(allowed_types=["polygon"])
    )
    found = send(boxes)
    assert found.pop("7.jpg")[1].startswith("7.jpg: project 'Yard': cannot store boxes")
    assert set(found.values()) == {("created", "")} and len(found) == 149


def test_an_upload_that_fails_for_all_stops(send, server, yard):
    names = [f"{number}.jpg" for number in range(150)]
    for name in names:
        yard.add_asset(name, size=SIZE)
    server.fail("batch-create", 409, 9999, code="PROJECT_STATE_FORBIDDEN")
    found = send({name: [("valve", (1, 2, 3, 4), 0.9)] for name in names})
    assert "20 images failed in a row, the last with: " in str(found.pop("end"))
    assert len(found) == 20 and server.counts["POST batch-create"] < 60


@pytest.mark.parametrize("status", ["drop", "drop-after", 500, 429])
def test_lost_answers_make_no_second_box(send, server, yard, status):
    north = yard.add_asset("north.jpg", size=SIZE)
    north.draw("gauge", (5, 5, 5, 5))
    server.fail("batch-create", status)
    boxes = [("valve", (10 + 60 * n, 20, 50, 40), 0.9) for n in range(6)]
    assert send({"north.jpg": boxes}) == {"north.jpg": ("updated", "")}
    assert len(north.boxes("model")) == 6 and len(north.boxes("manual")) == 1


def test_a_box_that_is_edited_during_the_run_stays(send, server, yard):
    north = yard.add_asset("north.jpg", size=SIZE)
    send({"north.jpg": [("valve", (1, 2, 30, 40), 0.9)]})
    (old,) = north.annotations.values()

    def edit(method, path, body):
        if path.endswith("batch-create"):
            old["geometry"]["w"] = 77
            north.draw("gauge", (100, 100, 10, 10))

    server.on_request = edit
    send({"north.jpg": [("valve", (200, 200, 30, 40), 0.9)]})
    assert north.boxes() == [
        ("gauge", 100, 100, 10, 10),
        ("valve", 1, 2, 77, 40),
        ("valve", 200, 200, 30, 40),
    ]


def test_an_image_that_is_approved_during_the_run_stays(send, server, yard):
    """At each moment before its boxes are written."""
    first = {"north.jpg": [("valve", (1, 2, 30, 40), 0.9)]}
    second = {"north.jpg": [("valve", (200, 200, 30, 40), 0.9)]}
    for kind in ("annotations", "classes", "assets"):
        yard.assets.clear()
        north = yard.add_asset("north.jpg", size=SIZE)
        server.on_request = None
        send(first)

        def approve(method, path, body, kind=kind, north=north):
            if path.endswith(kind) and north.status != "done":
                north.status = "done"

        server.on_request = approve
        assert send(second) == {"north.jpg": ("unchanged", "reviewed")}
        assert north.boxes() == [("valve", 1, 2, 30, 40)]


@pytest.mark.parametrize("request_kind", ["batch-create", "batch-delete"])
def test_an_image_that_is_approved_while_a_retry_waits(
    send, server, yard, request_kind
):
    north = yard.add_asset("north.jpg", size=SIZE)
    send({"north.jpg": [("valve", (1, 2, 30, 40), 0.9)]})
    server.fail(request_kind, 429, headers={"Retry-After": "0"})
    server.on_request = lambda method, path, body: (
        path.endswith(request_kind) and setattr(north, "status", "done")
    )
    found = send({"north.jpg": [("valve", (200, 200, 30, 40), 0.9)]})
    assert ("valve", 1, 2, 30, 40) in north.boxes()
    if request_kind == "batch-create":
        assert found == {"north.jpg": ("unchanged", "reviewed")}
        assert len(north.annotations) == 1
    else:
        ((result, reason),) = found.values()
        assert result == "failed" and "approved or skipped it while it was" in reason
        assert "1 of its 1 new boxes are stored, and its old ones" in reason


def test_a_box_that_is_moved_while_the_delete_waits_stays(send, server, yard):
    north = yard.add_asset("north.jpg", size=SIZE)
    send({"north.jpg": [("valve", (1, 2, 30, 40), 0.9)]})
    (old,) = north.annotations.values()
    server.fail("batch-delete", 429, headers={"Retry-After": "0"})
    server.on_request = lambda method, path, body: (
        path.endswith("batch-delete") and old["geometry"].update(x=15)
    )
    send({"north.jpg": [("valve", (200, 200, 30, 40), 0.9)]})
    assert ("valve", 15, 2, 30, 40) in north.boxes() and len(north.annotations) == 2


def test_decisions_are_read_in_one_request(send, server, yard):
    for number in range(350):
        yard.add_asset(f"{number}.jpg", size=SIZE, status="done")
    yard.add_asset("north.jpg", size=SIZE)
    server.counts.clear()
    send({"north.jpg": [("valve", (1, 2, 30, 40), 0.9)]})
    # All images, the first hundred again, and those that are decided.
    assert server.counts["GET assets"] == 4 + 1 + 1


def test_decisions_are_found_in_any_order(send, server, yard, monkeypatch):
    for number in range(250):
        yard.add_asset(f"{number}.jpg", size=SIZE, status="done")
    north = yard.add_asset("north.jpg", size=SIZE)

    def list_oldest_first(call, execute):
        refused = call.query.get("status_not", ())
        shown = [call.state(a) for a in yard.assets if a.status not in refused]
        return call.page(shown, ("q", "status_not"))

    change_answers(monkeypatch, "list_states", list_oldest_first)
    server.on_request = lambda method, path, body: (
        path.endswith("annotations") and setattr(north, "status", "done")
    )
    found = send({"north.jpg": [("valve", (1, 2, 30, 40), 0.9)]})
    assert found == {"north.jpg": ("unchanged", "reviewed")}


def test_images_that_are_changed_while_they_are_listed(send, server, yard):
    for number in range(120):
        yard.add_asset(f"{number}.jpg", size=SIZE)

    def change(method, path, body):
        # Comes to the front, so that the last of the first page is listed twice.
        if server.counts["GET assets"] == 2 and path.endswith("assets"):
            yard.assets[0].tags = ["new"]

    server.on_request = change
    boxes = {f"{n}.jpg": [("valve", (1, 2, 3, 4), 0.9)] for n in range(120)}
    assert set(send(boxes).values()) == {("created", "")}


def test_a_small_correction_of_a_small_box_stays(send, yard):
    north = yard.add_asset("north.jpg", size=SIZE)
    send({"north.jpg": [("valve", (10.3, 10.3, 8.2, 8.2), 0.9)]})
    (old,) = north.annotations.values()
    old["geometry"].update(x=11.4, w=7.6)
    send({"north.jpg": [("valve", (10, 20, 8, 8), 0.9)]})
    assert north.boxes() == [("valve", 10, 20, 8, 8), ("valve", 11.4, 10.3, 7.6, 8.2)]


def change_answers(monkeypatch, name, change):
    """Makes the stand-in answer calls of a method with what a function returns."""
    execute = getattr(platform_server._Call, name)
    monkeypatch.setattr(
        platform_server._Call, name, lambda call: change(call, lambda: execute(call))
    )


def test_boxes_that_the_platform_does_not_remove_are_named(send, yard, monkeypatch):
    north = yard.add_asset("north.jpg", size=SIZE)
    send({"north.jpg": [("valve", (1, 2, 30, 40), 0.9)]})
    none = {"total": 1, "deleted": 0, "skipped": 1, "results": []}
    change_answers(monkeypatch, "delete", lambda call, execute: none)
    ((result, reason),) = send({"north.jpg": [("gauge", (9, 9, 9, 9), 0.9)]}).values()
    assert result == "failed" and len(north.annotations) == 2
    assert "north.jpg: the platform has kept 1 boxes of an earlier run" in reason


def test_tags_that_the_platform_does_not_store_are_named(send, yard, monkeypatch):
    north = yard.add_asset("north.jpg", size=SIZE)
    none = {"total": 1, "updated": 0, "skipped": 1, "results": []}
    change_answers(monkeypatch, "update_tags", lambda call, execute: none)
    boxes = {"north.jpg": [("valve", (1, 2, 30, 40), 0.9)]}
    ((result, reason),) = send(boxes, tag="new").values()
    assert result == "failed" and "has not stored the tags new" in reason
    # Somebody else has added it in the meantime.
    change_answers(
        monkeypatch,
        "update_tags",
        lambda call, execute: north.tags.append("new") or none,
    )
    assert send(boxes, tag="new") == {"north.jpg": ("updated", "")}


@pytest.mark.parametrize("change", ["id", "place"])
def test_a_platform_that_changes_boxes(send, yard, monkeypatch, change):
    for name in ("north.jpg", "south.jpg"):
        yard.add_asset(name, size=SIZE)

    def execute_changed(call, execute):
        for row in call.content["annotations"]:
            if change == "id":
                row["id"] = platform_server.new_id()
            else:
                row["geometry"]["x"] *= 2
        return execute()

    change_answers(monkeypatch, "create", execute_changed)
    boxes = dict.fromkeys(("north.jpg", "south.jpg"), [("valve", (1, 2, 3, 4), 0.9)])
    found = send(boxes)
    words = "north.jpg: the platform has stored its 1 boxes under other ids or in other"
    assert words in str(found["end"])
    assert [len(asset.annotations) for asset in yard.assets] == [1, 0]
    # Its boxes are not sent again.
    only_north = {"north.jpg": boxes["north.jpg"]}
    assert send(only_north) == {"north.jpg": ("unchanged", "")}


def test_what_is_stored_is_reported_where_a_run_ends(send, server, yard):
    names = [f"{number}.jpg" for number in range(3)]
    for name in names:
        yard.add_asset(name, size=SIZE)
    boxes = [("valve", (n % 30 * 20, n // 30 * 20, 9, 9), 0.9) for n in range(600)]
    south = [("gauge", (n % 600, n // 600, 9, 9), 0.9) for n in range(1600)]
    server.fail("batch-create", 500, 99, after=2)
    found = send({names[0]: boxes, names[1]: south, names[2]: boxes})
    assert found[names[0]] == ("created", "") and names[2] not in found
    result, reason = found[names[1]]
    assert result == "failed" and "1000 of its 1600 new boxes are stored" in reason
    assert "the platform failed (500" in str(found["end"])
    server._failures.clear()
    assert send({names[0]: boxes, names[1]: south, names[2]: boxes}) == {
        names[0]: ("unchanged", ""),
        names[1]: ("updated", ""),
        names[2]: ("created", ""),
    }


def test_old_boxes_go_first_where_not_both_fit(send, server, yard, monkeypatch):
    # As if the limit of 5,000 were 50.
    monkeypatch.setattr(platform_server, "MAX_PER_ASSET", 50)
    monkeypatch.setattr(platform_plan, "MAX_ANNOTATIONS", 50)
    north = yard.add_asset("north.jpg", size=SIZE)
    for top in (0, 100):
        boxes = [("valve", (n * 10, top, 9, 9), 0.9) for n in range(30)]
        send({"north.jpg": boxes})
        assert north.boxes() == [("valve", n * 10, top, 9, 9) for n in range(30)]


def test_an_image_with_more_boxes_than_a_request_holds(send, server, yard):
    yard.add_asset("north.jpg", size=SIZE)
    yard.add_asset("south.jpg", size=SIZE)
    many = [("valve", (n % 600, n // 600, 9, 9), 0.9) for n in range(2500)]
    found = send({"north.jpg": many, "south.jpg": many[:10]})
    assert set(found.values()) == {("created", "")}
    assert server.rows == [1000, 1000, 510]
    more = [("gauge", (n % 600, n // 600, 9, 9), 0.9) for n in range(5001)]
    ((result, reason),) = send({"north.jpg": more}).values()
    assert result == "failed" and "expected at most 5000 boxes, got 5001" in reason
    assert len(yard.asset("north.jpg").boxes()) == 2500


def test_tags_that_the_project_does_not_allow(send, server, yard):
    yard.add_asset("north.jpg", size=SIZE)
    server.free_tags = False
    boxes = {"north.jpg": [("valve", (1, 2, 3, 4), 0.9)]}
    ((result, reason),) = send(boxes, tag="new").values()
    assert result == "failed" and "This tag is not in the palette" in reason


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (
            ["--status=SUBMITTED"],
            {},
            "--status: expected it for a project of the Suite",
        ),
        (
            ["--upload_images=true", "--images=."],
            {},
            "--upload_images: expected it for",
        ),
        (["--dataset=x"], {}, "--dataset: expected it for a project of the Suite only"),
        (["--replace=all"], {}, "what people have drawn there is never removed"),
        (
            [],
            {"SPB_ACCESS_KEY": "a-key-of-the-suite"},
            "--product: expected the credentials of one product, got SPB_ACCESS_KEY",
        ),
        (
            ["--product=platform"],
            {"SUPERB_AI_API_KEY": " ", "SUPERB_AI_TENANT": ""},
            "expected SUPERB_AI_API_KEY and SUPERB_AI_TENANT among the environment",
        ),
    ],
)
def test_errors(upload, server, tmp_path, arguments, environment, words):
    path = write_coco(tmp_path / "d.json", {})
    status, output, facts = upload(path, *arguments, **environment)
    assert status == 1 and facts is None
    (error,) = re.findall(r"^error: .*$", output, re.MULTILINE)
    assert words in error and "a-key-of-the-suite" not in output


def test_a_class_that_is_none_of_boxes(upload, yard, tmp_path):
    yard.classes[0]["allowed_types"] = ["polygon"]
    yard.classes[1]["archived"] = True
    boxes = [(name, (1, 2, 3, 4), 0.9) for name in NAMES]
    status, output, _ = upload(write_coco(tmp_path / "d.json", {"a.jpg": boxes}))
    assert status == 1
    assert "not bounding-box classes of the project: gauge, valve (polygon)" in output


def test_an_interrupted_run_reports_and_continues(server, yard, upload, tmp_path):
    for number in range(300):
        yard.add_asset(f"{number}.jpg", size=SIZE)
    boxes = {f"{n}.jpg": [("valve", (1, 2, 3, 4), 0.9)] for n in range(300)}
    path = write_coco(tmp_path / "d.json", boxes)
    server.fail("batch-create", 429, headers={"Retry-After": "60"}, after=2)
    process = subprocess.Popen(
        [
            *(sys.executable, REPOSITORY / "upload_superbai.py", "--project=Yard"),
            f"--annotations={path}",
        ],
        env={**server.environment(), "VH_OUTPUTS_DIR": str(tmp_path / "outputs")},
        stderr=subprocess.PIPE,
        text=True,
    )
    while server.counts["POST batch-create"] < 3:
        time.sleep(0.05)
    process.terminate()
    output = process.communicate(timeout=20)[1]
    assert process.returncode == 128 + 15, output
    facts = json.loads((tmp_path / "outputs" / "upload.json").read_text())
    # It does not wait for the minute, but tries once more.
    assert (facts["created"], facts["not_done"]) == (200, 100)
    _, _, facts = upload(path)
    assert (facts["unchanged"], facts["created"]) == (200, 100)


def test_a_second_signal_ends_a_request_that_hangs(server, yard):
    yard.add_asset("north.jpg", size=SIZE)
    boxes = {("valve", (1, 2, 3, 4)): None}
    api = PlatformApi(Credentials(server.url, server.tenant, server.key))
    project, signals, hangs = PlatformProject(api, "Yard"), SimpleQueue(), Event()
    item = upload_plan.Item("", "north.jpg", SIZE, dict(enumerate(boxes)), set())
    sender = Sender(project, [item], replace="ours", dry_run=False)
    assets = AssetIndex(project.read_assets())

    def hang(method, path, body):
        signals.put(None)
        signals.put(None)
        hangs.wait(20)

    server.on_request = hang
    started = time.monotonic()
    assert isinstance(sender.send_all(assets, signals, Bar()), KeyboardInterrupt)
    assert time.monotonic() - started < 5 and sender.outcomes == [None]
    hangs.set()


def test_boxes_in_one_place_have_ids_of_their_own():
    boxes = [("class", (1.1 + n / 200, 2, 3, 4)) for n in range(6)]
    change = platform_plan.plan_change("asset", boxes, [], "ours")
    assert len({row["id"] for row in change.rows}) == 4 and change.num_left_out == 2
    stored = [{**row, "source": "model", "data": {}} for row in change.rows]
    assert all(map(platform_plan.is_ours, stored))
    again = platform_plan.plan_change("asset", boxes[:3], stored, "ours")
    assert (again.rows, again.old_ids) == ([], [stored[3]["id"]])


def test_ids_survive_rounding_and_tell_boxes_apart():
    box = "asset", "class", (10.06, 20.55, 30.3, 9.97)
    stored = {
        "id": platform_plan.box_id(*box),
        "asset_id": "asset",
        "class_id": "class",
        "type": "bbox",
        "source": "model",
        "geometry": {"type": "bbox", "x": 10.06, "y": 20.55, "w": 30.3, "h": 9.97},
    }
    assert platform_plan.is_ours(stored)
    for decimals in (1, 0):
        rounded = [round(number, decimals) for number in box[2]]
        stored["geometry"] = dict(zip("xywh", rounded, strict=True))
        assert platform_plan.is_ours(stored)
    for change in ({"x": 12}, {"w": 28.5}, {"x": None}, {"h": float("nan")}, {"y": 34}):
        geometry = {**stored["geometry"], **change}
        assert not platform_plan.is_ours({**stored, "geometry": geometry})
    assert not platform_plan.is_ours({**stored, "asset_id": "other"})
    assert not platform_plan.is_ours({**stored, "source": "imported"})
