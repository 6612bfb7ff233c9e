"""How one label is brought in line, without the SDK: what people do meanwhile stays."""

import copy
import threading
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import requests

from superbai.upload import box_id, failures, sdk, upload_report, uploader
from superbai.upload.project import Project
from superbai.upload.project_classes import ProjectClasses
from superbai.upload.redaction import Redactor
from superbai.upload.upload_plan import Item

CAR = {"id": "c", "name": "car", "annotation_type": "box"}
INTERFACE = {"type": "image-siesta", "object_detection": {"object_classes": [CAR]}}
BOX = (1.5, 2, 30, 24)


class Suite:
    """A project of one image, in place of the SDK's client.

    Attributes:
        label: what the Suite has of it, None if it lacks the image.
        before: called with the name of each change before it is made.
        rewrite: called with each object that is stored.
        answers: dict from the name of a change to a list of what happens with it: an
            exception for no change, `lost` for one without an answer, None for success.
        status_of_image: of the answer to a request for it.
    """

    def __init__(self, status="WORKING", objects=(), tags=()):
        self.label = SimpleNamespace(status=status, objects=list(objects), tags=tags)
        self.before, self.rewrite = (lambda change: None), (lambda stored: None)
        self.answers, self.status_of_image = {}, 200

    def get_data_page(self, dataset, data_key):
        is_found = self.label and (dataset, data_key) == ("ds", "a.jpg")
        return [Handle(self)] if is_found else []

    def get_project_id(self):
        return "p"

    def change(self, name, make):
        self.before(name)
        answers = self.answers.get(name) or [None]
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        make()
        if answer == "lost":
            raise requests.ConnectionError("no answer")


class Handle:
    """The SDK's handle of a label, as it was read."""

    def __init__(self, suite):
        self._suite, now = suite, copy.deepcopy(suite.label)
        result = {"objects": now.objects}
        self.data = SimpleNamespace(result=result, stats=[], status=now.status)
        self._tags = list(now.tags)

    def get_dataset_name(self):
        return "ds"

    def get_key(self):
        return "a.jpg"

    def get_tags(self):
        return self._tags

    def update_tags(self, tags):
        label = self._suite.label
        self._suite.change("tags", lambda: setattr(label, "tags", tags))

    def update_status(self, status):
        label = self._suite.label
        self._suite.change("status", lambda: setattr(label, "status", status))

    def set_object_labels(self, labels):
        made = {"annotation_type": "box", "class_id": "c"}
        self.data.result["objects"] = [each | made for each in labels]

    def update_info(self):
        objects = copy.deepcopy(self.data.result["objects"])
        for each in objects:
            self._suite.rewrite(each)
        label = self._suite.label
        self._suite.change("objects", lambda: setattr(label, "objects", objects))
        self.data.result = {"objects": objects}


@pytest.fixture
def run(monkeypatch):
    """Brings the label of a `Suite` in line; returns the `Outcome` and the report."""
    monkeypatch.setattr(sdk, "RETRY_SECONDS", (0.0, 0.0))

    def run(suite, *, tags=(), is_sent=True, register=None, **options):
        project = Project.__new__(Project)
        project._sdk = sdk.Sdk.__new__(sdk.Sdk)
        project._sdk.stopped = project.stopped = threading.Event()
        project._sdk._errors, project._sdk._resume_at = failures.RedirectError, 0.0
        project._sdk.redact = Redactor("team", "k3y-0f-a-team")
        project._client = suite
        project._files = SimpleNamespace(expecting=lambda label: nullcontext())
        project.classes = ProjectClasses(INTERFACE, "P", by_name_only=False)
        project.request_image = lambda label: suite.status_of_image

        def upload_image(encoded, dataset, key):
            (register or (lambda: None))()
            suite.label = suite.label or Suite().label
            return is_sent

        project.upload_image = upload_image
        sent = {box_id.make_id("ds", "a.jpg", "car", BOX): ("car", BOX)}
        item = Item("ds", "a.jpg", (64, 48), sent, set(tags))
        values = {"status": "keep", "replace": "ours", "upload_images": False} | options
        upload = uploader.Uploader(
            project, lambda item: b"jpeg", dry_run=False, **values
        )
        outcome = upload(item)
        values = {"project": "P", "dry_run": False}
        return outcome, upload_report.make_report(values, [item], [outcome], "", str)

    return run


def at(change, function):
    """Returns what calls a function before the first change of a kind."""
    left = [function]

    def before(name):
        if name == change and left:
            left.pop()()

    return before


@pytest.mark.parametrize("moment", ["objects", "tags"])
def test_tags_that_people_set_meanwhile_stay(run, moment):
    suite = Suite(tags=["train"])
    # The first try fails, and another one follows.
    suite.answers["tags"] = [requests.ConnectionError("x"), None]
    suite.before = at(moment, lambda: suite.label.tags.append("holdout"))
    outcome, _ = run(suite, tags=["ours"])
    assert outcome.result == "created"
    assert sorted(suite.label.tags) == ["holdout", "ours", "train"]


@pytest.mark.parametrize("answer", [requests.ConnectionError("x"), "lost"])
def test_a_status_that_people_set_meanwhile_stays(run, answer):
    suite = Suite()
    run(suite)
    suite.answers["status"] = [answer, None]
    skip = at("status", lambda: setattr(suite.label, "status", "SKIPPED"))
    suite.before = skip if answer != "lost" else suite.before
    outcome, _ = run(suite, status="SUBMITTED")
    assert outcome.result == "updated" and not suite.answers["status"][1:]
    assert suite.label.status == ("SUBMITTED" if answer == "lost" else "SKIPPED")


@pytest.mark.parametrize("fails", ["objects", "objects and status", "last status"])
def test_a_reopened_label_is_closed_again(run, fails):
    refused = requests.ConnectionError("x")
    suite = Suite("SUBMITTED")
    if fails == "last status":
        suite.answers["status"] = [None, refused, refused, refused]
    else:
        suite.answers["objects"] = [refused] * 3
        is_status = fails != "objects"
        suite.answers["status"] = [None, *[refused] * 3 * is_status, None]
    outcome, _ = run(suite, status="SKIPPED")
    assert outcome.result == "failed" and outcome.is_suite_failure
    is_open = fails != "objects"
    assert suite.label.status == ("WORKING" if is_open else "SUBMITTED")
    assert ("its status was SUBMITTED and is WORKING now" in outcome.reason) is is_open
    assert len(suite.label.objects) == (fails == "last status")


def test_a_label_that_is_submitted_while_its_boxes_are_written_is_named(run):
    suite = Suite()
    suite.before = at("objects", lambda: setattr(suite.label, "status", "SUBMITTED"))
    outcome, report = run(suite)
    assert outcome.result == "created" and outcome.was_decided_meanwhile
    assert report["decided_meanwhile"] == [{"dataset": "ds", "key": "a.jpg"}]
    assert upload_report.metadata(report)["decided_meanwhile"] == 1
    suite = Suite()
    assert not run(suite, status="SUBMITTED")[0].was_decided_meanwhile


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one["annotation"]["coord"].update(x=3),
        lambda one: one["properties"].append({"property_id": "default"}),
    ],
)
def test_boxes_that_are_stored_otherwise_are_counted(run, change):
    suite = Suite()
    suite.rewrite = change
    outcome, report = run(suite)
    assert outcome.reason == uploader.STORED_OTHERWISE
    assert (report["stored_otherwise"], report["other_ids"]) == (1, 0)
    suite = Suite()
    suite.rewrite = lambda one: one["annotation"]["coord"].update(x=2)  # Rounded.
    assert run(suite)[1]["stored_otherwise"] == 0


def test_bytes_that_never_arrive(run):
    suite = Suite()
    suite.label, suite.status_of_image = None, 404
    outcome, report = run(suite, upload_images=True)
    assert outcome.result == "failed" and "delete it in the Suite" in outcome.reason
    assert report["without_bytes"] == [{"dataset": "ds", "key": "a.jpg"}]
    # An upload without the images has put boxes there: they are not people's.
    run(suite)
    assert len(suite.label.objects) == 1
    outcome, _ = run(suite, upload_images=True)
    assert outcome.lacks_bytes and "delete it in the Suite" in outcome.reason
    suite.label.objects[0]["annotation"]["coord"]["x"] = 9
    outcome, _ = run(suite, upload_images=True)
    assert outcome.lacks_bytes and "has objects of people" in outcome.reason


@pytest.mark.parametrize("is_registered", [True, False, None])
def test_a_registration_without_an_answer(run, is_registered):
    suite = Suite()
    suite.label = None

    def register():
        if is_registered:
            suite.label = Suite().label
        if is_registered is None:
            suite.get_data_page = fail
        raise failures.SuiteError("no answer.")

    def fail(**names):
        raise requests.ConnectionError("x")

    outcome, report = run(suite, upload_images=True, register=register)
    assert outcome.result == "failed" and outcome.is_suite_failure
    assert len(report["without_bytes"]) == (is_registered is not False)
    expected = {True: "has its name", False: "no answer.", None: "it is not known"}
    assert expected[is_registered] in outcome.reason
