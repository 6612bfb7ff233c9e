"""Drives the stand-in for the new platform with the vendor's own client.

    python3.12 -m venv sdk && sdk/bin/pip install superb-ai==0.4.0
    sdk/bin/python tests/superbai/platform/drive_platform_server.py

A program, and no test of the suite, as the client needs Python 3.12 or later. What the
client sends must be accepted, and what the stand-in answers must be what it expects.
"""

import sys
import uuid
from pathlib import Path

from superb_ai import (
    AuthenticationError,
    BadRequestError,
    Client,
    ConflictError,
    NotFoundError,
    UnprocessableError,
    _files,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "helpers"))
from platform_server import PlatformServer  # noqa: E402

POLYGON = {
    "type": "polygon",
    "polygons": [
        {"exterior": [[0, 0], [10, 0], [5, 5]], "holes": [[[1, 1], [2, 1], [2, 2]]]}
    ],
}
KEYPOINT = {"type": "keypoint", "points": [{"x": 1, "y": 2, "visibility": 2}]}


def refuses(error, call, words=""):
    """Checks that a call raises an error with some words."""
    try:
        call()
    except error as raised:
        assert words in str(raised), raised
        return
    raise AssertionError(f"expected {error.__name__} {words}")


def make_project(server):
    project = server.add_project("Yard", ["valve", "gauge"])
    project.add_class("road", ["polygon"])
    project.add_class("man", ["keypoint"])
    for number in range(230):
        asset = project.add_asset(f"{number}.jpg", b"file %d" % number, (640, 480))
        asset.draw("valve", (12.5, 30, 100, 40.25))
    project.assets[0].draw("road", geometry=POLYGON)
    project.assets[0].draw("man", geometry=KEYPOINT)
    project.assets[1].draw("gauge", (0, 0, -5, 0), source="model")
    return project


def check_reading(client, project, version):
    others = [each.name for each in client.projects.list(limit=1)]
    assert others == ["Yard", "Other", "Film"]
    assert client.projects.get(project.id).name == "Yard"
    assert len(client.classes.list(project.id).classes) == 4
    states = [str(each.status) for each in client.versions.list(project.id)]
    assert states == ["building", "ready"]
    path = project.id, version.facts["id"]
    frozen = client.versions.get(*path)
    assert [c.name for c in frozen.frozen_classes.classes][:2] == ["valve", "gauge"]
    assets = list(client.versions.list_assets(*path, limit=100))
    assert len(assets) == frozen.frozen_asset_count == 230
    assert assets[3].status == "purged" and assets[3].image_url is None
    detail = client.versions.get_asset(*path, assets[0].asset_id)
    assert [str(s.type) for s in detail.shapes] == ["bbox", "polygon", "keypoint"]
    assert detail.shapes[0].geometry.w == 100
    assert _files.fetch_bytes(detail.image_url) == b"file 0"
    detail = client.versions.get_asset(*path, assets[1].asset_id)
    assert str(detail.shapes[1].source) == "model" and detail.shapes[1].geometry.w == -5
    building, _ = client.versions.list(project.id)
    not_ready = project.id, building.id
    refuses(ConflictError, lambda: client.versions.list_assets(*not_ready), "NOT_READY")
    unknown = project.id, uuid.uuid4()
    refuses(NotFoundError, lambda: client.versions.get(*unknown), "VERSION_NOT_FOUND")


def check_writing(client, project):
    states = list(client.workflow.list_asset_states(project.id, limit=100))
    assert len(states) == 230 and states[0].asset.properties.width == 640

    def row(number, w=3.0):
        return {
            "id": str(uuid.uuid4()),
            "asset_id": project.assets[number % 200].id,
            "class_id": project.class_ids["gauge"],
            "type": "bbox",
            "geometry": {"type": "bbox", "x": 1.0, "y": 2.0, "w": w, "h": 4.0},
        }

    def create(rows):
        return client.annotations.project_batch_create(
            project.id, annotations=rows, source="model"
        )

    rows = [row(number) for number in range(1000)]
    assert create(rows).created == 1000
    refuses(UnprocessableError, lambda: create([*rows, row(0)]), "1 to 1000")
    refuses(UnprocessableError, lambda: create(rows[:1]), "annotations.0: id exists")
    refuses(UnprocessableError, lambda: create([row(0), row(1, w=0.0)]), "tations.1: ")
    ids = [asset.id for asset in project.assets]
    listed = client.annotations.list
    model = {"source": "model", "limit": 200}
    found = list(listed(project.id, asset_ids=ids[:100], **model))
    # The one that was drawn, and five on each.
    assert len(found) == 501 and not found[0].locked
    refuses(BadRequestError, lambda: listed(project.id, asset_ids=ids[:101]))
    deleted = client.annotations.batch_delete(project.id, ids=[rows[0]["id"], ids[0]])
    assert (deleted.deleted, deleted.skipped) == (1, 1)
    refuses(
        UnprocessableError,
        lambda: client.annotations.batch_delete(project.id, ids=[ids[0]] * 501),
    )
    tagged = client.tags.batch_update(project.id, asset_ids=ids[:2], tags_add=["x"])
    assert tagged.updated == 2 and project.assets[0].tags == ["x"]
    job = client.project_assets.bulk_delete_annotations(
        project.id, filter={}, source="model"
    ).wait(poll_interval=0.01)
    assert (str(job.status), job.total) == ("completed", 1000)
    kept = {a["source"] for asset in project.assets for a in asset.annotations.values()}
    assert kept == {"manual"}


def main():
    with PlatformServer() as server:
        project = make_project(server)
        server.add_project("Other")
        server.add_project("Film", kind="video")
        version = project.freeze("v1", purged=["3.jpg"])
        project.freeze("v2", status="building")
        options = {"tenant": server.tenant, "base_url": server.url}
        client = Client(api_key=server.key, **options)
        check_reading(client, project, version)
        check_writing(client, project)
        wrong = Client(api_key="sbd_pk_wrong", **options)
        refuses(AuthenticationError, lambda: wrong.projects.list(), "AUTH_INVALID")
        server.fail("projects", 429, headers={"Retry-After": "0"})
        assert len(list(client.projects.list())) == 3
        print(f"{sum(server.counts.values())} requests of the client are answered")


if __name__ == "__main__":
    main()
