"""The stand-in for the Suite's API: it answers what the SDKs send."""

import base64
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest
import requests
import suite_export
from suite_server import SuiteServer

from superbai.export import Export

ASSET = "id labelId file fileName fileSize dataset dataKey presignedURL"
LABEL = (
    "id projectId tags status stats workAssignee reviewer reviewRound lastReviewAction "
    "labelType workapp relatedLabelMethod consensusStatus consistencyScore dataId "
    "dataset dataKey dataUrl result infoReadPresignedUrl infoWritePresignedUrl "
    "createdBy createdAt lastUpdatedBy lastUpdatedAt infoLastUpdatedBy lastReviewedAt"
)
PROJECT = (
    "id name labelInterface workapp settings labelCount isPublic createdAt createdBy "
    "lastUpdatedAt lastUpdatedBy progress submittedLabelCount inProgressLabelCount "
    "skippedLabelCount stats"
)
ONE_PROJECT = f"query ($name:String) {{project(name:$name){{{PROJECT}}}}}"
CLASSES = (("car", "box"), ("person", "box"), ("road", "polygon"))
COORD = {"x": 1, "y": 2, "width": 30, "height": 4.5}


@pytest.fixture
def server():
    with SuiteServer() as server:
        server.add_project("Cars", CLASSES)
        yield server


def post(server, path, query, key="secret", **variables):
    """Sends a query as the SDKs do; returns the response."""
    pair = base64.b64encode(f"{server.team}:{key}".encode()).decode()
    return requests.post(
        server.url + path,
        json={"query": query, "variables": variables},
        headers={"X-API-KEY": key, "Authorization": f"Basic {pair}"},
    )


def ask(*arguments, **variables):
    """Sends a query; returns the value that it asks for."""
    response = post(*arguments, **variables)
    assert response.status_code == 200, response.text
    (value,) = response.json()["data"].values()
    return value


def create_asset(server, dataset="ds", key="a.jpg"):
    """Sends the mutation; the SDKs paste all values into its text."""
    return post(
        server,
        "/graphql",
        f'mutation {{createAsset(file:"",fileName:"a.jpg",fileSize:3,'
        f'dataset:"{dataset}",dataKey:"{key}",'
        f'projectId:"{server.projects["Cars"].id}"){{{ASSET}}}}}',
    )


def find(server, **filters):
    """Returns the number of labels that match, and a page of ten of them."""
    kinds = {"tags": "JSON"}
    defined = "".join(f",${name}:{kinds.get(name, 'String')}" for name in filters)
    arguments = "".join(f",{name}:${name}" for name in filters)
    query = (
        f"query ($projectId:String!{defined}) {{labels(projectId:$projectId{arguments},"
        f"page:1,pageSize:10){{count, edges{{{LABEL}}}}}}}"
    )
    project_id = server.projects["Cars"].id
    found = ask(server, "/v2/graphql", query, projectId=project_id, **filters)
    return found["count"], found["edges"]


def update(server, label, name, **values):
    """Changes a label; returns the response."""
    kinds = {"tags": "[JSONObject!]", "result": "JSONObject", "status": "String!"}
    (argument,) = values
    query = (
        f"mutation ($projectId: String!, $id: String!, ${argument}: {kinds[argument]})"
        f" {{  {name}(       projectId: $projectId, id: $id, {argument}: ${argument}"
        f"   ) {{      {LABEL}     }} }}"
    )
    ids = {"projectId": label.project.id, "id": label.id}
    return post(server, "/v2/graphql", query, **ids, **values)


def test_a_project_by_name(server):
    found = ask(server, "/v3/graphql", ONE_PROJECT, name="Cars")
    assert list(found) == PROJECT.split()
    assert found["labelInterface"] == server.projects["Cars"].interface
    assert found["workapp"] == "image-siesta" and found["settings"] == {}
    by_id = "query ($id:String) {project(id:$id){name}}"
    assert ask(server, "/v3/graphql", by_id, id=found["id"]) == {"name": "Cars"}
    everything = "query  {projects(page:1,pageSize:10){count, edges{id name}}}"
    edges = [{"id": found["id"], "name": "Cars"}]
    assert ask(server, "/v3/graphql", everything) == {"count": 1, "edges": edges}


def test_an_unknown_project(server):
    assert ask(server, "/v3/graphql", ONE_PROJECT, name="Boats") is None
    server.unknown_project = "error"
    (error,) = post(server, "/v3/graphql", ONE_PROJECT, name="Boats").json()["errors"]
    assert "extensions" not in error


@pytest.mark.parametrize("headers", [{}, {"X-API-KEY": "secret"}])
def test_credentials_are_checked(server, headers):
    assert post(server, "/v3/graphql", ONE_PROJECT, key="no").status_code == 401
    body = {"query": ONE_PROJECT}
    response = requests.post(server.url + "/v3/graphql", json=body, headers=headers)
    assert response.status_code == 401


def test_an_image_from_upload_to_export(server, tmp_path):
    asset = create_asset(server, key="sub/a.jpg").json()["data"]["createAsset"]
    assert list(asset) == ASSET.split() and asset["fileSize"] == 3
    label = server.label("Cars", "ds", "sub/a.jpg")
    assert label.id == asset["labelId"] and label.encoded is None
    assert label.file_name == "a.jpg"
    encoded = suite_export.encoded_image()
    assert requests.put(asset["presignedURL"], data=encoded).ok
    assert label.encoded == encoded

    count, (found,) = find(server, dataset="ds", dataKey="sub/a.jpg")
    assert count == 1 and list(found) == LABEL.split()
    assert found["status"] == "WORKING" and found["workapp"] == "IMAGE_SIESTA"
    assert requests.get(found["dataUrl"]).content == encoded
    assert requests.get(found["infoReadPresignedUrl"]).status_code == 404
    thing = label.project.object("car", "box", COORD)
    result = {"objects": [thing], "categories": {"properties": []}}
    counts = {"id": thing["class_id"], "name": "car", "count": 1}
    tags = {"classes_count": [counts]}
    updated = update(server, label, "updateLabelInfo", result={"tags": tags}).json()
    updated = updated["data"]["updateLabelInfo"]
    assert updated["stats"] == [{"name": "car", "count": 1}]
    info = {"version": "0.8.2", "meta": {"image_info": {}}, "result": result}
    assert requests.put(updated["infoWritePresignedUrl"], json=info).ok
    assert requests.get(updated["infoReadPresignedUrl"]).json() == info
    assert update(server, label, "updateLabelTags", tags=[{"name": "x"}]).ok
    assert update(server, label, "updateLabelStatus", status="SUBMITTED").ok
    assert (label.tags, label.status, label.objects) == (["x"], "SUBMITTED", [thing])

    images, labels = server.export("Cars", tmp_path)
    with Export([images], labels) as export:
        (item,) = export.items
        assert export.class_names == ["car", "person"] and item.tags == {"x"}
        record = export.read(item)
    assert record.source_id == "ds/sub/a.jpg" and record.encoded == encoded
    assert record.boxes_px == [(1, 2, 31, 6.5)]
    kinds = "createAsset put-image labels get-image get-info updateLabelInfo put-info "
    kinds += "get-info updateLabelTags updateLabelStatus"
    assert server.log == [(kind, "ds/sub/a.jpg") for kind in kinds.split()]
    assert server.counts["get-info"] == 2


def test_labels_are_found_by_filters(server):
    for number in range(12):
        tags = ["train", "x"] if number % 2 else ["train"]
        server.add_asset("Cars", f"ds{number % 3}", f"{number}.jpg", tags=tags)
    count, edges = find(server)
    assert count == 12 and len(edges) == 10
    assert [label["dataKey"] for label in edges[:2]] == ["0.jpg", "1.jpg"]
    assert find(server, dataset="ds1")[0] == 4
    assert find(server, dataKey="7.jpg")[0] == find(server, id=edges[0]["id"])[0] == 1
    assert find(server, dataset="ds1", dataKey="2.jpg") == (0, [])
    assert find(server, tags=[{"name": "train"}, {"name": "x"}])[0] == 6


@pytest.mark.parametrize(
    "key",
    ['a"b', '"', '""', "a\\q", "a\\", "a\nb", 'a",dataset:"b', 'a"){id}} #', "\x01"],
)
def test_a_key_that_breaks_the_query(server, key):
    response = create_asset(server, key=key)
    assert response.status_code == 400 and response.json()["errors"]
    assert not server.labels and server.log == [("invalid", "")]


@pytest.mark.parametrize(
    ("key", "stored"),
    [("사진 #1 (a){b}.jpg", None), ("a\tb", None), ("a\\nb", "a\nb"), ("\\u0041", "A")],
)
def test_a_key_as_the_query_reads_it(server, key, stored):
    assert create_asset(server, key=key).ok
    (label,) = server.labels.values()
    assert label.key == (stored or key)


@pytest.mark.parametrize(
    "query",
    [
        "query ($name:String) {project(name:$name){id nonsense}}",
        "query ($name:String) {project(name:$name,nonsense:1){id}}",
        "query {project(name:$name){id}}",
        "mutation ($name:String) {project(name:$name){id}}",
        "query ($name:String) {project(name:$name){id}",
        "query {labels{count}}",
        "",
    ],
)
def test_an_invalid_query(server, query):
    assert post(server, "/v3/graphql", query, name="Cars").status_code == 400


def test_a_key_is_taken_once_in_a_dataset(server):
    assert "errors" not in create_asset(server).json()
    assert "errors" not in create_asset(server, dataset="other").json()
    (error,) = create_asset(server).json()["errors"]
    assert error["extensions"]["code"] == 409 and len(server.labels) == 2


def test_a_presigned_url_is_valid_for_one_method_and_some_seconds(server):
    label = server.add_asset("Cars", "ds", "a.jpg", b"abc")
    _, (found,) = find(server, id=label.id)
    read, write = found["infoReadPresignedUrl"], found["infoWritePresignedUrl"]
    other = server.add_asset("Cars", "ds", "b.jpg")
    others = [read.replace(label.id, other.id), read.replace("/info/", "/image/")]
    for url in [*others, read[:-1], read.split("?")[0]]:
        assert requests.get(url).status_code == 403
    assert requests.put(read, data=b"{}").status_code == 403
    assert requests.get(write).status_code == 403
    assert requests.put(write, data=iter([b"{}"])).status_code == 411  # Chunked.
    assert label.info is None
    server.url_lifetime = 0.05
    _, (found,) = find(server, id=label.id)
    time.sleep(0.1)
    assert requests.get(found["dataUrl"]).status_code == 403


@pytest.mark.parametrize(
    ("failure", "status", "expected"),
    [
        (401, 401, "Status 401"),
        (403, 403, "Status 403"),
        (429, 429, "Status 429"),
        (503, 503, "Status 503"),
        ("limit", 200, '{"error": {"message": "Limit Exceeded"}}'),
        ("html", 200, "<!DOCTYPE html>"),
        ("graphql-error", 200, '[{"message": "Something went wrong"}]'),
        ("graphql-404", 200, '"code": 404'),
        ("graphql-INTERNAL_SERVER_ERROR", 200, '"code": "INTERNAL_SERVER_ERROR"'),
    ],
)
def test_a_failure(server, failure, status, expected):
    label = server.add_asset("Cars", "ds", "a.jpg")
    server.fail("updateLabelTags", failure, 1, after=1)
    for name, is_failing in (("x", False), ("y", True), ("z", False)):
        response = update(server, label, "updateLabelTags", tags=[{"name": name}])
        assert (expected in response.text) == is_failing, response.text
        assert response.status_code == (status if is_failing else 200)
        assert (label.tags == [name]) != is_failing


def test_what_a_failing_answer_has_besides(server):
    server.fail("project", 429, headers={"Retry-After": "7"})
    answers = [post(server, "/v3/graphql", ONE_PROJECT, name="Cars") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [429, 200]
    assert [answer.headers.get("Retry-After") for answer in answers] == ["7", None]


def test_objects_that_are_rewritten_when_they_are_saved(server):
    label = server.add_asset("Cars", "ds", "a.jpg", objects=[])
    _, (found,) = find(server, id=label.id)
    server.rewrite = lambda objects: [{**one, "id": "new"} for one in objects[::-1]]
    info = {"result": {"objects": [{"id": "a", "x": 1}, {"id": "b"}]}, "meta": {}}
    assert requests.put(found["infoWritePresignedUrl"], json=info).ok
    assert label.objects == [{"id": "new"}, {"id": "new", "x": 1}]


def test_an_unknown_failure_is_refused(server):
    with pytest.raises(ValueError, match="no such failure: drip"):
        server.fail(None, "drip")


@pytest.mark.parametrize(
    ("failure", "is_done"), [("drop", False), ("drop-after", True)]
)
def test_a_connection_that_breaks(server, failure, is_done):
    server.fail(None, failure)
    with pytest.raises(requests.ConnectionError):
        create_asset(server)
    assert bool(server.labels) == is_done


def test_bytes_that_the_storage_drops(server):
    server.fail("put-image", "lose")
    url = create_asset(server).json()["data"]["createAsset"]["presignedURL"]
    for expected in (None, b"abc"):
        assert requests.put(url, data=b"abc").status_code == 200
        assert server.label("Cars", "ds", "a.jpg").encoded == expected


def test_incomplete_bytes_are_not_stored(server):
    asset = create_asset(server).json()["data"]["createAsset"]
    address = urlsplit(asset["presignedURL"])
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = f"PUT {address.path}?{address.query} HTTP/1.1\r\nHost: localhost\r\n"
        connection.sendall(f"{head}Content-Length: 6\r\n\r\nabc".encode())
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert server.label("Cars", "ds", "a.jpg").encoded is None
    assert not server.counts["put-image"]


def test_a_storage_at_another_address(server):
    server.storage_url = "http://127.0.0.1:1"
    server.add_asset("Cars", "ds", "a.jpg", b"abc")
    _, (found,) = find(server)
    assert found["dataUrl"].startswith("http://127.0.0.1:1/image/")


def test_urls_that_have_expired(server):
    server.fail("createAsset", "expired")
    server.fail(lambda request: request.key == "b.jpg", 500, times=None)
    url = create_asset(server).json()["data"]["createAsset"]["presignedURL"]
    assert requests.put(url, data=b"abc").status_code == 403
    assert server.label("Cars", "ds", "a.jpg").encoded is None
    assert create_asset(server, key="b.jpg").status_code == 500
    server.recover()
    assert create_asset(server, key="b.jpg").ok


def test_simultaneous_requests(server):
    seen = []
    server.before_request = seen.append
    server.fail("createAsset", "slow", times=None, seconds=0.5)
    threads = [
        threading.Thread(target=create_asset, args=(server, "ds", f"{number}.jpg"))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.most_in_flight == 4 and len(server.labels) == 4
    assert {request.name for request in seen} == {f"ds/{n}.jpg" for n in range(4)}


def test_equal_keys_of_two_datasets_are_exported_separately(server, tmp_path):
    project, colours = server.projects["Cars"], {"one": (9, 9, 9), "two": (33, 9, 9)}
    for dataset, colour in colours.items():
        things = [project.object("person", "box", COORD | {"x": colour[0]})]
        encoded = suite_export.encoded_image(colour)
        saved = {"objects": things, "status": "SUBMITTED", "size": (64, 48)}
        server.add_asset("Cars", dataset, "a.jpg", encoded, **saved)
    server.add_asset(
        "Cars", "one", "b.jpg", suite_export.encoded_image(), status="SKIPPED"
    )
    images, labels = server.export("Cars", tmp_path)
    with Export([images], labels) as export:
        records = suite_export.read_items(export)
        assert {item.labelled_size for item in export.items} == {(64, 48)}
    assert set(records) == {"one/a.jpg", "two/a.jpg"}
    for dataset, colour in colours.items():
        record = records[f"{dataset}/a.jpg"]
        assert record.encoded == suite_export.encoded_image(colour)
        assert record.boxes_px[0][0] == colour[0] and record.labels == [1]


def test_a_legacy_project(server, tmp_path):
    server.add_project("Old", [("car", "box")], workapp="image-default")
    coord = {"x": 1, "y": 2, "width": 3, "height": 4}
    thing = {"id": 1, "class": "car", "shape": {"box": coord}, "properties": []}
    encoded = suite_export.encoded_image()
    saved = {"objects": [thing], "status": "SUBMITTED"}
    label = server.add_asset("Old", "ds", "a.jpg", encoded, **saved)
    query = (
        "query ($projectId:String!) {labels(projectId:$projectId,page:1,pageSize:1)"
        "{count, edges{workapp result infoReadPresignedUrl}}}"
    )
    found = ask(server, "/v2/graphql", query, projectId=label.project.id)
    assert found["edges"] == [
        {
            "workapp": "IMAGE_DEFAULT",
            "result": {"objects": [thing], "categories": {}},
            "infoReadPresignedUrl": None,
        }
    ]
    images, labels = server.export("Old", tmp_path)
    with Export([images], labels) as export:
        assert suite_export.read_items(export)["ds/a.jpg"].boxes_px == [(1, 2, 4, 6)]
