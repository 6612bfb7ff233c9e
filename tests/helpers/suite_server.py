"""A local stand-in for the API of the Superb AI Suite, for tests.

It answers the requests of spb-cli 0.18 and superb-ai-label 0.22 for looking up
projects, uploading images and changing labels. Tests can make requests fail, and export
a project as the Suite does.

    with SuiteServer() as server:
        project = server.add_project("Cars", [("car", "box")])
        label = server.add_asset("Cars", "street", "a.jpg", encoded)
        ...  # A process with the environment `server.environment()` uploads.
        images, labels = server.export("Cars", folder)
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
import sys
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from suite_graphql import Refused, errors, parse_operation, select_fields

_FILTERS = {"id": "id", "dataset": "dataset", "dataKey": "key"}
_FAILURES = (
    *("drop", "drop-after", "lose", "slow", "expired", "limit", "html"),
    "graphql-error",
)


def _now():
    return datetime.now(UTC).isoformat()


def _new_id():
    return str(uuid4())  # The SDKs replace ids of any other version.


@dataclass
class Project:
    """A project of the Suite; `interface` is the project.json of an export."""

    name: str
    workapp: str
    interface: dict
    settings: dict
    id: str = field(default_factory=_new_id)
    created_at: str = field(default_factory=_now)

    @property
    def is_legacy(self):
        """Whether the API itself stores the labels, not files beside it."""
        return self.workapp == "image-default"

    def object(self, name, kind, coord, **others):
        """Returns an object of one class as the Suite stores it when a person draws it.

        Args:
            name, kind: the name and the annotation type of the class.
            coord: its coordinates, in pixels.
            **others: further keys, or other values of keys.
        """
        classes = self.interface["object_detection"]["object_classes"]
        ids = {(c["name"], c["annotation_type"]): c["id"] for c in classes}
        meta = {"z_index": 1, "visible": True, "alpha": 1, "color": "#FF625A"}
        return {
            "id": _new_id(),
            "class_name": name,
            "class_id": ids[name, kind],
            "annotation_type": kind,
            "annotation": {"coord": coord, "meta": meta},
            "properties": [],
            "tracking_id": None,
            **others,
        }


@dataclass
class Label:
    """An image of a project, and its label.

    Attributes:
        encoded: bytes of the image; None until they are sent.
        tags: list of names.
        info: bytes of the label's file; None until they are sent.
        legacy_result: the label in a legacy project; None until it is saved.
        stats: number of objects by class, as the client sent them.
        file_name: name of the image's file, as the client sent it.
        id, asset_id: of the label and of the image.
    """

    project: Project
    dataset: str
    key: str
    encoded: bytes | None = None
    tags: list[str] = field(default_factory=list)
    status: str = "WORKING"
    info: bytes | None = None
    legacy_result: dict | None = None
    stats: list[dict] = field(default_factory=list)
    file_name: str = ""
    id: str = field(default_factory=_new_id)
    asset_id: str = field(default_factory=_new_id)
    created_at: str = field(default_factory=_now)
    updated_at: str = field(default_factory=_now)

    @property
    def result(self):
        """The objects and categories of the label; None if it was never saved."""
        if self.project.is_legacy or self.info is None:
            return self.legacy_result
        return json.loads(self.info).get("result")

    @property
    def objects(self):
        """The objects of the label, a list."""
        return (self.result or {}).get("objects") or []


class Request(NamedTuple):
    """What a request is about.

    Attributes:
        kind: the name of the GraphQL operation; `put-image`, `get-image`, `put-info` or
            `get-info`; otherwise `invalid`.
        project: the name of its project, or what the request has instead.
        dataset, key: of its image; empty unless it is about one image.
        label_id: of its label; empty if the request does not name it.
    """

    kind: str
    project: str = ""
    dataset: str = ""
    key: str = ""
    label_id: str = ""

    @property
    def name(self):
        """`<dataset>/<key>`, or the project if it is not about one image."""
        return f"{self.dataset}/{self.key}" if self.key else self.project


@dataclass
class _Failure:
    """The arguments of `SuiteServer.fail`."""

    match: str | Callable | None
    status: int | str
    times: int | None
    after: int
    seconds: float
    headers: dict

    def fits(self, request):
        """Tells whether a request fails; counts the requests that match."""
        matches = self.match in (None, request.kind)
        if callable(self.match):
            matches = self.match(request)
        if not matches or self.times == 0:
            return False
        if self.after:
            self.after -= 1
            return False
        if self.times:
            self.times -= 1
        return True


class SuiteServer:
    """The Suite's API for one team; use as a context manager.

    Attributes:
        url: what the SDKs take as SPB_APP_API_ENDPOINT.
        projects: dict from names to `Project`.
        labels: dict from ids to `Label`, in the order of their creation.
        lock: held while a request reads or changes the two.
        counts: Counter of the requests by kind.
        log: list of (kind, name) of the requests, in their order; see `Request`.
        most_in_flight: the largest number of simultaneous requests.
        before_request: called with each `Request` before it is executed; or None.
        rewrite: function from the objects of a label, a list of dicts, to those that
            are stored in place of them when it is saved; or None.
        url_lifetime: seconds until presigned URLs expire.
        storage_url: start of the presigned URLs, by default `url`.
        unknown_project: answer to an unknown project's name, `null` or `error`.
    """

    def __init__(self, team="team", key="secret", *, unknown_project="null"):
        self.team, self.key, self.unknown_project = team, key, unknown_project
        self.projects, self.labels, self.lock = {}, {}, threading.RLock()
        self.counts, self.log, self.most_in_flight = Counter(), [], 0
        self.before_request, self.url_lifetime, self.rewrite = None, 3600, None
        self._by_key, self._failures, self._in_flight = {}, [], 0
        self._lifetime = 3600  # Of the URLs in the current answer.
        self._secret, self._closing = secrets.token_bytes(16), threading.Event()
        pair = base64.b64encode(f"{team}:{key}".encode()).decode()
        self._credentials = {"X-API-KEY": key, "Authorization": f"Basic {pair}"}
        self._http = _Http(("127.0.0.1", 0), partial(_Handler, self._respond))
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.storage_url = self.url

    def __enter__(self):
        serve = partial(self._http.serve_forever, poll_interval=0.02)
        threading.Thread(target=serve, daemon=True).start()
        return self

    def __exit__(self, *error):
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()

    def environment(self):
        """Returns the environment variables with which both SDKs find this server."""
        return {
            "SPB_APP_API_ENDPOINT": self.url,
            "SPB_TEAM_NAME": self.team,
            "SPB_ACCESS_KEY": self.key,
            "no_proxy": "127.0.0.1",
        }

    def add_project(
        self, name, classes=(), *, workapp="image-siesta", version="0.6.5", settings=()
    ):
        """Adds a project and returns it.

        Args:
            classes: pairs of name and annotation type.
            workapp: `image-siesta`, `image-default` (legacy), or another.
            version: of its format; the SDKs choose the spelling of keys by it.
            settings: a dict, or pairs.
        """
        interface = _interface(classes, workapp, version)
        self.projects[name] = Project(name, workapp, interface, dict(settings))
        return self.projects[name]

    def add_asset(
        self,
        project,
        dataset,
        key,
        encoded=None,
        *,
        objects=None,
        size=None,
        tags=(),
        status="WORKING",
    ):
        """Adds an image with its label, and returns the `Label`.

        Args:
            project: the name of its project.
            encoded: the bytes of its file; None as after an interrupted upload.
            objects: list of the label's objects; None for a label that was never
                saved.
            size: (width, height) at which it was labelled.
            tags: names.
            status: WORKING, SUBMITTED or SKIPPED.
        """
        project = self.projects[project]
        label = Label(project, dataset, key, encoded, list(tags), status)
        size = dict(zip(("width", "height"), size or (), strict=False))
        if objects is not None and project.is_legacy:
            label.legacy_result = {"objects": objects, "categories": {}}
        elif objects is not None:
            info = {
                "version": project.interface["version"],
                "meta": {"image_info": size, "edit_info": {"objects": []}},
                "result": {"objects": objects, "categories": {"properties": []}},
                "tags": {},
            }
            label.info = json.dumps(info).encode()
        with self.lock:
            self._add(label)
        return label

    def label(self, project, dataset, key):
        """Returns the `Label` of an image."""
        return self._by_key[project, dataset, key]

    def export(self, project, folder):
        """Writes the two downloads of a project, as the Suite does.

        Args:
            project: the name of the project.
            folder: a `pathlib.Path`.

        Returns:
            The paths of `images.zip` and of `labels.zip`.
        """
        project = self.projects[project]
        paths = folder / "images.zip", folder / "labels.zip"
        with (
            self.lock,
            zipfile.ZipFile(paths[0], "w") as images,
            zipfile.ZipFile(paths[1], "w", zipfile.ZIP_DEFLATED) as texts,
        ):
            labels = self._labels_of(project)
            texts.writestr("project.json", json.dumps(project.interface))
            folders = sorted({f"meta/{label.dataset}/" for label in labels})
            for name in ("meta/", *folders, "labels/"):
                texts.writestr(name, b"")
            is_key_enough = len({label.key for label in labels}) == len(labels)
            for label in labels:
                key = label.key.lstrip("/")
                path = key if is_key_enough else f"{label.dataset}/{key}"
                if label.encoded is not None:
                    images.writestr(f"{project.name}/{path}.jpg", label.encoded)
                meta = json.dumps(_meta(label))
                texts.writestr(f"meta/{label.dataset}/{key}.json", meta)
                content = label.result
                if project.is_legacy:
                    content = {"result": content}
                texts.writestr(f"labels/{label.id}.json", json.dumps(content))
        return paths

    def fail(self, match, status, times=1, *, after=0, seconds=1.0, headers=()):
        """Makes requests fail from now on.

        Args:
            match: a kind of request, a function from a `Request` to a bool, or None for
                all requests.
            status: an HTTP status, or one of
                `drop`: the request is not executed and the connection closed;
                `drop-after`: it is executed, but the connection closed without answer;
                `lose`: it is answered but not executed; only for sent bytes;
                `slow`: it is executed after some seconds;
                `expired`: the presigned URLs in the answer have expired, or the one
                that is requested;
                `limit`: the error for too many requests of a team;
                `graphql-error`: a GraphQL error without a code;
                `graphql-<code>`: one with a code, INTERNAL_SERVER_ERROR or a number;
                `html`: a web page instead of JSON.
            times: number of requests that fail; None for all.
            after: number of matching requests that succeed first.
            seconds: delay of `slow`.
            headers: a dict of what the answer has besides, if it has a status.
        """
        if status not in _FAILURES and not re.match(r"\d+$|graphql-", str(status)):
            raise ValueError(f"no such failure: {status}")
        with self.lock:
            self._failures.append(
                _Failure(match, status, times, after, seconds, dict(headers))
            )

    def settle(self):
        """Waits until the requests of a killed client are done."""
        is_quiet = False
        while not is_quiet:
            time.sleep(0.2)  # Requests that wait at the socket are not counted yet.
            is_quiet = not self._in_flight

    def recover(self):
        """Ends all failures set by `fail`."""
        with self.lock:
            self._failures.clear()

    def _respond(self, method, target, headers, body):
        """Returns the status and the content; None to close the connection."""
        with self.lock:
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            with self.lock:
                request, execute = self._parse(method, target, headers, body)
                self.counts[request.kind] += 1
                self.log.append((request.kind, request.name))
                failure = next((f for f in self._failures if f.fits(request)), None)
            if self.before_request:
                self.before_request(request)
            status = failure and failure.status
            if status == "drop":
                return None
            if status == "lose":
                return 200, b""
            if status == "slow":
                self._closing.wait(failure.seconds)
            elif status not in (None, "drop-after", "expired"):
                answer = _failed(status, is_file="-" in request.kind)
                return *answer, failure.headers
            with self.lock:
                self._lifetime = -1 if status == "expired" else self.url_lifetime
                try:
                    answer = execute()
                except Refused as refused:
                    answer = refused.answer
            return None if status == "drop-after" else answer
        finally:
            with self.lock:
                self._in_flight -= 1

    def _parse(self, method, target, headers, body):
        """Returns a `Request` and a function that executes it."""
        url = urlsplit(target)
        found = re.fullmatch("/(image|info)/([0-9a-f-]{36})", url.path)
        if found:
            kind, label = f"{method.lower()}-{found[1]}", self.labels.get(found[2])
            return _about(kind, label), partial(self._serve_file, method, url, body)
        try:
            name, arguments, fields = parse_operation(url.path, body)
            work = partial(self._execute, name, arguments, fields)
        except Refused as refused:
            name, arguments = "invalid", {}
            work = partial(_raise, refused)
        return self._describe(name, arguments), partial(self._check, headers, work)

    def _describe(self, kind, arguments):
        if arguments.get("id") in self.labels:
            return _about(kind, self.labels[arguments["id"]])
        keys = ("projectId", "id", "name")
        asked = next(filter(None, map(arguments.get, keys)), "")
        names = [p.name for p in self.projects.values() if p.id == asked]
        identity = arguments.get("dataset") or "", arguments.get("dataKey") or ""
        return Request(kind, *(names or [asked]), *identity)

    def _check(self, headers, work):
        if any(headers.get(k) != v for k, v in self._credentials.items()):
            return _failed(401)
        return work()

    def _execute(self, name, arguments, fields):
        """Answers a GraphQL operation."""
        if name == "project":
            value = self._find_project(arguments)
        elif name == "projects":
            part = (arguments.get("nameIcontains") or "").lower()
            found = [p for p in self.projects.values() if part in p.name.lower()]
            value = _page(found, arguments, self._project_values)
        else:
            ids = {project.id: project for project in self.projects.values()}
            project = ids.get(arguments["projectId"]) or _not_found()
            work = {"createAsset": self._create_asset, "labels": self._find_labels}
            value = work.get(name, self._update_label)(project, arguments)
        return 200, {"data": {name: select_fields(value, fields)}}

    def _find_project(self, arguments):
        name, project_id = arguments.get("name"), arguments.get("id")
        for project in self.projects.values():
            if name == project.name or project_id == project.id:
                return self._project_values(project)
        if self.unknown_project == "error":
            raise Refused(*errors("Project not found"))
        return None

    def _create_asset(self, project, arguments):
        identity = project.name, arguments["dataset"], arguments["dataKey"]
        if not all(identity):
            raise Refused(*errors("Bad Request", 400))
        if identity in self._by_key:
            raise Refused(*errors("Conflict", 409))
        label = self._add(
            Label(project, *identity[1:], file_name=arguments["fileName"])
        )
        url = self._presign("PUT", "image", label)
        return {
            **arguments,
            "id": label.asset_id,
            "labelId": label.id,
            "presignedURL": url,
        }

    def _add(self, label):
        self.labels[label.id] = label
        self._by_key[label.project.name, label.dataset, label.key] = label
        return label

    def _labels_of(self, project):
        return [x for x in self.labels.values() if x.project is project]

    def _find_labels(self, project, arguments):
        identity = project.name, arguments.get("dataset"), arguments.get("dataKey")
        if all(identity):  # Fast, as this is requested for each of thousands.
            found = [self._by_key[identity]] if identity in self._by_key else []
        else:
            found = self._labels_of(project)
        for argument, attribute in _FILTERS.items():
            expected = arguments.get(argument)
            found = [x for x in found if expected in (None, getattr(x, attribute))]
        tags = {tag["name"] for tag in arguments.get("tags") or ()}
        found = [x for x in found if tags <= set(x.tags)]
        return _page(found, arguments, self._label_values)

    def _update_label(self, project, arguments):
        label = self.labels.get(arguments["id"])
        if label is None or label.project is not project:
            _not_found()
        label.status = arguments.get("status") or label.status
        if arguments.get("tags") is not None:
            label.tags = [tag["name"] for tag in arguments["tags"]]
        if arguments.get("result") is not None and project.is_legacy:
            label.legacy_result = arguments["result"]
        elif arguments.get("result") is not None:
            # The objects are sent later; this holds their counts.
            counts = (arguments["result"].get("tags") or {}).get("classes_count") or []
            label.stats = [{"name": c["name"], "count": c["count"]} for c in counts]
        label.updated_at = _now()
        return self._label_values(label)

    def _project_values(self, project):
        labels = self._labels_of(project)
        counts = Counter(label.status for label in labels)
        return {
            "id": project.id,
            "name": project.name,
            "labelInterface": project.interface,
            "workapp": project.workapp,
            "settings": project.settings,
            "labelCount": len(labels),
            "isPublic": False,
            "progress": 100 * counts["SUBMITTED"] // max(len(labels), 1),
            "submittedLabelCount": counts["SUBMITTED"],
            "inProgressLabelCount": counts["WORKING"],
            "skippedLabelCount": counts["SKIPPED"],
            "stats": [],
            **_history(project.created_at, project.created_at),
        }

    def _label_values(self, label):
        unset = (
            "workAssignee reviewer lastReviewAction relatedLabelMethod consensusStatus "
            "consistencyScore infoLastUpdatedBy lastReviewedAt "
            "infoReadPresignedUrl infoWritePresignedUrl"
        )
        urls = {"dataUrl": ("GET", "image")}
        if not label.project.is_legacy:
            urls["infoReadPresignedUrl"] = "GET", "info"
            urls["infoWritePresignedUrl"] = "PUT", "info"
        return {
            **dict.fromkeys(unset.split()),
            "id": label.id,
            "projectId": label.project.id,
            "tags": [{"name": name} for name in label.tags],
            "status": label.status,
            "stats": label.stats,
            "reviewRound": 0,
            "labelType": "DEFAULT",
            "workapp": label.project.workapp.upper().replace("-", "_"),
            "dataId": label.asset_id,
            "dataset": label.dataset,
            "dataKey": label.key,
            "result": label.legacy_result,
            **{name: self._presign(*what, label) for name, what in urls.items()},
            **_history(label.created_at, label.updated_at),
        }

    def _presign(self, method, what, label):
        """Returns a URL that is valid for one method and some seconds."""
        path, expires = f"/{what}/{label.id}", str(time.time() + self._lifetime)
        signature = self._sign(method, path, expires)
        return f"{self.storage_url}{path}?expires={expires}&signature={signature}"

    def _sign(self, *parts):
        return hmac.new(self._secret, repr(parts).encode(), hashlib.sha256).hexdigest()

    def _serve_file(self, method, url, body):
        """Answers a request to a presigned URL, which needs no credentials."""
        query = parse_qs(url.query)
        expires, signature = (query.get(k, [""])[0] for k in ("expires", "signature"))
        if not hmac.compare_digest(signature, self._sign(method, url.path, expires)):
            return 403, b"SignatureDoesNotMatch"
        if self._lifetime < 0 or float(expires) < time.time():
            return 403, b"AccessDenied: Request has expired"
        _, what, label_id = url.path.split("/")
        label, attribute = self.labels[label_id], {"image": "encoded"}.get(what, what)
        if method == "PUT":
            if what == "info" and self.rewrite:
                content = json.loads(body)
                objects = content["result"]["objects"]
                content["result"]["objects"] = self.rewrite(objects)
                body = json.dumps(content).encode()
            setattr(label, attribute, body)
            return 200, b""
        content = getattr(label, attribute)
        return (404, b"NoSuchKey") if content is None else (200, content)


class _Http(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request, client_address):
        # Clients may disconnect at any time; other errors are bugs of this file.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Send each answer immediately and in one piece.
    disable_nagle_algorithm = True
    wbufsize = 2**16

    def __init__(self, respond, *arguments):
        self._respond = respond
        super().__init__(*arguments)

    def log_message(self, *arguments):
        pass

    def do_POST(self):
        length = self.headers.get("Content-Length")
        if length is None and self.command != "GET":  # Chunked, which S3 refuses.
            self.close_connection, answer = True, (411, b"MissingContentLength")
            while self.rfile.readline().strip() not in (b"0", b""):
                pass  # Unread bytes would cut the answer off.
        else:
            body, answer = self.rfile.read(int(length or 0)), None
            if len(body) == int(length or 0):  # Otherwise the client was killed.
                answer = self._respond(self.command, self.path, self.headers, body)
        if answer is None:
            self.close_connection = True
            return
        status, content, *headers = answer
        if isinstance(content, dict):
            content = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers[0] if headers else {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST


def _page(found, arguments, values):
    """Returns a page of the values; the first page is 1."""
    size = arguments.get("pageSize") or 10
    first = ((arguments.get("page") or 1) - 1) * size
    return {
        "count": len(found),
        "edges": list(map(values, found[first : first + size])),
    }


def _about(kind, label):
    if label is None:
        return Request(kind)
    return Request(kind, label.project.name, label.dataset, label.key, label.id)


def _failed(status, is_file=False):
    """Returns the answer to a failing request; see `SuiteServer.fail`."""
    if isinstance(status, int):
        return status, {"message": f"Status {status}"}
    if is_file:  # Clients would take an error in the content for success.
        return 503, b"SlowDown"
    if status == "html":
        return 200, b"<!DOCTYPE html><p>Please log in</p>"
    if status == "limit":
        return 200, {"error": {"message": "Limit Exceeded"}}
    code = status.removeprefix("graphql-")
    code = int(code) if code.isdigit() else None if code == "error" else code
    return errors("Something went wrong", code)


def _not_found():
    raise Refused(*errors("Request failed with status code 404", 404))


def _raise(error):
    raise error


def _history(created_at, updated_at):
    by = dict.fromkeys(("createdBy", "lastUpdatedBy"), "someone@example.com")
    return {"createdAt": created_at, "lastUpdatedAt": updated_at, **by}


def _interface(classes, workapp, version):
    if workapp == "image-default":
        rest = {"min": 0, "max": 0, "properties": []}
        objects = [
            {
                "class_name": name,
                "class_id": number,
                "info": {"shapes": {kind: {}}, **rest},
            }
            for number, (name, kind) in enumerate(classes, start=1)
        ]
        return {"groups": [], "objects": objects}
    rest = {"color": "#FF625A", "properties": [], "constraints": {}, "ai_class_map": []}
    things = {
        "keypoints": [],
        "annotation_types": sorted({kind for _, kind in classes}),
        "object_groups": [],
        "object_classes": [
            {"id": _new_id(), "name": name, "annotation_type": kind, **rest}
            for name, kind in classes
        ],
    }
    is_video = workapp == "video-siesta"
    return {
        "type": workapp,
        "version": version,
        "data_type": "image sequence" if is_video else "image",
        "categorization": {"properties": []},
        "object_tracking" if is_video else "object_detection": things,
    }


def _meta(label):
    meta = json.loads(label.info or b"{}").get("meta") or {}
    return {
        "data_key": label.key,
        "dataset": label.dataset,
        # Empty if it was never opened in the Suite, as after the SDKs save it.
        "image_info": meta.get("image_info") or {},
        "label_id": label.id,
        "label_path": [f"labels/{label.id}.json"],
        "last_updated_date": label.updated_at,
        "tags": [{"name": name} for name in label.tags],
        "work_assignee": "",
        "status": label.status,
        "info": {},
        "related_labels": {"consensus_labeling": []},
    }
