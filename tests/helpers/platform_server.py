"""A local stand-in for the REST interface of Superb AI's new platform, for tests.

It answers the requests that superb-ai 0.4.0 sends for projects, classes, versions,
images, annotations, tags and jobs, in the form that this client reads. It is strict:
unknown paths, parameters and fields are refused, and so is a signed address that is
requested with credentials.

    with PlatformServer() as server:
        project = server.add_project("Yard", ["valve", "gauge"])
        asset = project.add_asset("north.jpg", encoded, (640, 480), tags=["test"])
        asset.draw("valve", (12.5, 30, 100, 40.25))
        version = project.freeze("v1")
        ...  # A process with the environment `server.environment()` works with it.
"""

import json
import threading
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

MAX_ROWS, MAX_DELETED, MAX_ASSETS, MAX_BYTES = 1000, 500, 100, 5_000_000
MAX_PER_ASSET = 5000
ROW_FIELDS = {
    *("id", "asset_id", "filename", "class_id", "type", "geometry", "data"),
    *("instance_id", "locked"),
}
_FAILURES = ("drop", "drop-after", "html", "short")


def now():
    return datetime.now(UTC).isoformat()


def new_id():
    return str(uuid.uuid4())


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status, code, message, details=None):
        super().__init__(message)
        self.status, self.code, self.details = status, code, details


@dataclass
class Asset:
    """An image of a project, and its annotations as the interface shows them."""

    project: object
    filename: str
    encoded: bytes
    size: tuple | None
    tags: list
    status: str = "to_label"
    id: str = field(default_factory=new_id)
    annotations: dict = field(default_factory=dict)
    updated_at: str = field(default_factory=now)

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if name in ("status", "tags"):
            self.updated_at = now()

    def draw(self, class_name, xywh=None, *, geometry=None, source="manual", **others):
        """Adds an annotation, a box unless a geometry is given; returns it."""
        if geometry is None and xywh is not None:
            geometry = {"type": "bbox", **dict(zip("xywh", xywh, strict=True))}
        annotation = {
            "id": new_id(),
            "asset_id": self.id,
            "class_id": self.project.class_ids[class_name],
            "type": geometry["type"] if geometry else "classification",
            "parent_id": None,
            "instance_id": None,
            "geometry": geometry,
            "data": {},
            "source": source,
            "locked": False,
            "created_by": None,
            "created_at": now(),
            "updated_at": now(),
        } | others
        self.annotations[annotation["id"]] = annotation
        return annotation

    def boxes(self, source=None):
        """Returns (class name, x, y, w, h) of each box, sorted."""
        names = {i: name for name, i in self.project.class_ids.items()}
        return sorted(
            (names[a["class_id"]], *(a["geometry"][k] for k in "xywh"))
            for a in self.annotations.values()
            if a["type"] == "bbox" and source in (None, a["source"])
        )

    def summary(self):
        """Returns the image as the interface shows it."""
        sides = zip(("width", "height"), self.size or (), strict=False)
        return {
            "id": self.id,
            "filename": self.filename,
            "content_type": "image/jpeg",
            "status": "ready",
            "properties": dict(sides),
            "thumbnail_url": None,
        }


@dataclass
class Version:
    """A frozen project: its description, and its images with their shapes."""

    facts: dict
    assets: list


@dataclass
class Project:
    """A project: `classes` are as the interface shows them."""

    server: object
    name: str
    kind: str = "image"
    classes: list = field(default_factory=list)
    assets: list = field(default_factory=list)
    versions: list = field(default_factory=list)
    id: str = field(default_factory=new_id)

    @property
    def class_ids(self):
        return {each["name"]: each["id"] for each in self.classes}

    def add_class(self, name, types=("bbox",), **others):
        self.classes.append(
            {
                "id": new_id(),
                "kind": "object",
                "name": name,
                "color": "#00ff00",
                "allowed_types": list(types),
                "archived": False,
                "keypoint_topology": None,
                "attributes": [],
                "created_at": now(),
                "updated_at": now(),
            }
            | others
        )

    def add_asset(self, filename, encoded=b"", size=None, tags=(), **others):
        asset = Asset(self, filename, encoded, size, list(tags), **others)
        self.assets.append(asset)
        return asset

    def asset(self, filename):
        (found,) = [asset for asset in self.assets if asset.filename == filename]
        return found

    def freeze(self, name, *, status="ready", purged=(), **others):
        """Adds a version of what the project has now; returns it.

        Args:
            purged: file names of images whose bytes are gone.
        """
        keys = "id", "name", "color", "allowed_types", "keypoint_topology", "archived"
        classes = [{key: each[key] for key in keys} for each in self.classes]
        facts = {
            "id": new_id(),
            "project_id": self.id,
            "name": name,
            "description": None,
            "status": status,
            "frozen_asset_count": len(self.assets),
            "frozen_class_count": len(classes),
            "frozen_classes": {"classes": classes},
            "error": None,
            "created_by": None,
            "created_at": now(),
            "updated_at": now(),
            "completed_at": now(),
        } | others
        hidden = ("asset_id", "locked")
        assets = [
            {
                "asset_id": asset.id,
                "filename": asset.filename,
                "width": (asset.size or (0, 0))[0],
                "height": (asset.size or (0, 0))[1],
                "tags": list(asset.tags),
                "annotation_count": len(asset.annotations),
                "status": "purged" if asset.filename in purged else "present",
                "thumbnail_url": None,
                "shapes": [
                    json.loads(
                        json.dumps({k: v for k, v in a.items() if k not in hidden})
                    )
                    for a in asset.annotations.values()
                ],
            }
            for asset in self.assets
        ]
        self.versions.append(Version(facts, assets))
        return self.versions[-1]


class PlatformServer:
    """The interface for one workspace; use as a context manager.

    Attributes:
        url: the base address.
        projects: list of `Project`.
        counts: Counter of the requests by method and last part of the path.
        rows: list of the number of rows of each request that creates annotations.
        decimals: to which coordinates are rounded; None to keep them.
        free_tags: whether new tags may be added.
        on_request: called with method, path and body before it is executed; or None.
        link_version: number that a signed address must have; a larger one makes those
            that were given out before invalid.
    """

    def __init__(self, tenant="acme", key="sbd_pk_test/+key==1"):
        self.tenant, self.key = tenant, key
        self.projects, self.jobs = [], {}
        self.counts, self.rows, self.lock = Counter(), [], threading.RLock()
        self.decimals, self.free_tags, self.on_request = None, True, None
        self.link_version, self._failures = 0, []
        self._http = ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(_Handler, self._respond)
        )
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self):
        serve = partial(self._http.serve_forever, poll_interval=0.02)
        threading.Thread(target=serve, daemon=True).start()
        return self

    def __exit__(self, *error):
        self._http.shutdown()
        self._http.server_close()

    def environment(self):
        """Returns the environment variables with which clients find this server."""
        return {
            "SUPERB_AI_BASE_URL": self.url,
            "SUPERB_AI_TENANT": self.tenant,
            "SUPERB_AI_API_KEY": self.key,
            "no_proxy": "127.0.0.1",
        }

    def add_project(self, name, classes=(), kind="image"):
        """Adds a project with these classes of boxes; returns it."""
        project = Project(self, name, kind)
        for each in classes:
            project.add_class(each)
        self.projects.append(project)
        return project

    def fail(self, match, status, times=1, *, code="", headers=(), after=0):
        """Makes requests fail from now on.

        Args:
            match: end of their path.
            status: an HTTP status; `drop`, the request is not executed and the
                connection closed; `drop-after`, it is executed first; `html`, a web
                page with status 200; `short`, half of the answer.
            times: number of requests that fail.
            code: of the error.
            headers: dict of headers of the answer.
            after: number of matching requests that succeed first.
        """
        assert status in _FAILURES or isinstance(status, int)
        self._failures.append([match, status, times, code, dict(headers), after])

    def _respond(self, method, target, headers, body):
        """Returns status, headers and content; None to close the connection."""
        path = urlsplit(target).path
        with self.lock:
            self.counts[f"{method} {path.rpartition('/')[2]}"] += 1
            failure = self._next_failure(path)
        if self.on_request:
            self.on_request(method, path, body)
        status = failure[1] if failure else None
        if status == "drop":
            return None
        if status == "html":
            return 200, {"Content-Type": "text/html"}, b"<html>log in</html>"
        if isinstance(status, int):
            return status, failure[4], _error(failure[3] or "INTERNAL_ERROR", "set up")
        with self.lock:
            try:
                status_and_content = self._execute(method, target, headers, body)
            except Refused as refused:
                content = _error(refused.code, str(refused), refused.details)
                status_and_content = refused.status, content
        if status == "drop-after":
            return None
        status_code, content = status_and_content
        more = {"X-Short": "1"} if status == "short" else {}
        return status_code, more, content

    def _next_failure(self, path):
        for failure in self._failures:
            if path.endswith(failure[0]) and failure[2]:
                if failure[5]:
                    failure[5] -= 1
                    continue
                failure[2] -= 1
                return failure
        return None

    def _execute(self, method, target, headers, body):
        """Returns the status and the bytes of an answer."""
        parts = urlsplit(target)
        query = parse_qs(
            parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)
        )
        first, *path = parts.path.strip("/").split("/")
        if first == "storage":
            return self._read_storage(path[0], query, headers)
        if headers.get("Authorization") != f"Bearer {self.key}":
            raise Refused(401, "AUTH_INVALID_CREDENTIAL", "Invalid credential.")
        if first != "tenants" or path[0] != self.tenant:
            raise Refused(404, "TENANT_NOT_FOUND", "No such workspace.")
        content = json.loads(body) if body else None
        answer = _Call(self, method, path[1:], query, content, len(body)).answer()
        return answer[0], json.dumps(answer[1]).encode()

    def _read_storage(self, asset_id, query, headers):
        if "Authorization" in headers or "Cookie" in headers:
            return 400, b"<Error>OnlyOneAuthMechanismAllowed</Error>"
        if query.get("signature") != [f"v{self.link_version}"]:
            return 403, b"<Error>AccessDenied</Error>"
        for project in self.projects:
            for asset in project.assets:
                if asset.id == asset_id:
                    return 200, asset.encoded
        return 404, b"<Error>NoSuchKey</Error>"


class _Call:
    """One request of a workspace, taken apart."""

    def __init__(self, server, method, path, query, content, size):
        self.server, self.method, self.path = server, method, path
        self.query, self.content, self.size = query, content, size

    def answer(self):
        """Returns the status and the content."""
        match self.method, self.path:
            case "GET", ["projects"]:
                projects = [self.describe(each) for each in self.server.projects]
                return 200, self.page(projects, ("q", "status", "dataset_kind"))
            case "GET", ["jobs", job_id]:
                return 200, self.server.jobs[job_id]
            case _, ["projects", project_id, *rest]:
                self.project = self.find(
                    self.server.projects, project_id, "PROJECT_NOT_FOUND"
                )
                return self.answer_about_project(rest)
        raise Refused(404, "UNCATEGORIZED", f"No path {self.path}.")

    def answer_about_project(self, rest):
        project = self.project
        match self.method, rest:
            case "GET", []:
                return 200, self.describe(project)
            case "GET", ["classes"]:
                self.check_query("include_archived")
                shown = [c for c in project.classes if not c["archived"]]
                return 200, {"classes": shown, "image_classifications": []}
            case "GET", ["assets"]:
                return 200, self.list_states()
            case "GET", ["assets", asset_id]:
                found = self.find(project.assets, asset_id, "ASSET_NOT_FOUND")
                return 200, self.state(found)
            case "GET", ["annotations"]:
                return 200, self.list_annotations()
            case "GET", ["versions"]:
                newest = [v.facts for v in reversed(project.versions)]
                return 200, self.page(newest, ("q", "status"))
            case "GET", ["versions", version_id, *rest]:
                return 200, self.answer_about_version(version_id, rest)
            case "POST", ["annotations", "batch-create"]:
                return 201, self.create()
            case "POST", ["annotations", "batch-delete"]:
                return 200, self.delete()
            case "POST", ["assets", "batch-update-tags"]:
                return 200, self.update_tags()
            case "POST", ["assets", "bulk-delete-annotations"]:
                return 202, self.bulk_delete()
        raise Refused(404, "UNCATEGORIZED", f"No path {rest}.")

    def answer_about_version(self, version_id, rest):
        for version in self.project.versions:
            if version.facts["id"] == version_id:
                break
        else:
            raise Refused(404, "VERSION_NOT_FOUND", "No such version.")
        if not rest:
            return version.facts
        if version.facts["status"] != "ready":
            raise Refused(409, "RESOURCE_NOT_READY", "The version is not ready.")
        shown = []
        for asset in version.assets:
            address = None
            if asset["status"] != "purged":
                number = self.server.link_version
                root = f"{self.server.url}/storage/{asset['asset_id']}"
                address = f"{root}?signature=v{number}"
            shown.append(asset | {"image_url": address})
        if rest == ["assets"]:
            for each in shown:
                del each["shapes"]
            return self.page(shown, ("q", "tags"))
        for each in shown:
            if rest == ["assets", each["asset_id"]]:
                return each
        raise Refused(404, "ASSET_NOT_FOUND", "Not part of this version.")

    def describe(self, project):
        return {
            "id": project.id,
            "dataset_id": project.id,
            "dataset_name": None,
            "dataset_kind": project.kind,
            "name": project.name,
            "description": None,
            "assignment_mode": "self_claim",
            "status": "active",
            "tag_config": {"allowed_tags": [], "free_form": self.server.free_tags},
            "progress": None,
            "created_at": now(),
            "updated_at": now(),
        }

    def state(self, asset):
        return {
            "project_id": self.project.id,
            "asset_id": asset.id,
            "asset": asset.summary(),
            "status": asset.status,
            "assigned_to": None,
            "rework_count": 0,
            "updated_at": asset.updated_at,
            "tags": list(asset.tags),
        }

    def list_states(self):
        """Returns a page of the images, those that were changed last first."""
        refused = self.query.get("status_not", ())
        shown = [a for a in self.project.assets if a.status not in refused]
        shown.sort(key=lambda asset: asset.updated_at, reverse=True)
        return self.page([self.state(a) for a in shown], ("q", "status_not"))

    def list_annotations(self):
        wanted = self.query.get("asset_ids")
        if wanted and len(wanted) > MAX_ASSETS:
            raise Refused(400, "INVALID_FILTER", "Too many asset_ids.")
        rows = [
            annotation
            for asset in self.project.assets
            if not wanted or asset.id in wanted
            for annotation in asset.annotations.values()
            if self.query.get("source", [annotation["source"]])
            == [annotation["source"]]
        ]
        return self.page(rows, ("asset_ids", "source"), cap=200)

    def create(self):
        body = self.check_body({"annotations", "source", "replace"}, MAX_BYTES)
        rows, source = body["annotations"], body.get("source", "manual")
        if source not in ("manual", "imported", "model"):
            raise Refused(422, "VALIDATION_ERROR", "source: unknown.")
        if not 1 <= len(rows) <= MAX_ROWS:
            raise Refused(
                422, "VALIDATION_ERROR", f"1 to {MAX_ROWS} rows, got {len(rows)}"
            )
        self.server.rows.append(len(rows))
        by_key = {}
        for asset in self.project.assets:
            for key in (asset.id, asset.filename):
                by_key.setdefault(key, []).append(asset)
        ids = {each for asset in self.project.assets for each in asset.annotations}
        new = [self.check_row(n, row, by_key, ids) for n, row in enumerate(rows)]
        replaced = 0
        if body.get("replace"):
            for asset in {asset.id: asset for asset, _ in new}.values():
                replaced += len(asset.annotations)
                asset.annotations.clear()
        per_asset = Counter(asset.id for asset, _ in new)
        for asset, _ in new:
            if len(asset.annotations) + per_asset[asset.id] > MAX_PER_ASSET:
                raise Refused(422, "VALIDATION_ERROR", "too many on one asset")
        for asset, annotation in new:
            asset.annotations[annotation["id"]] = annotation | {"source": source}
        return {"total": len(new), "created": len(new), "replaced": replaced}

    def check_row(self, number, row, by_key, ids):
        """Returns the asset of a row and its annotation."""

        def refuse(reason):
            details = {
                "errors": [{"loc": ["body", "annotations", number], "msg": reason}]
            }
            text = f"annotations[{number}]: {reason}"
            raise Refused(422, "VALIDATION_ERROR", text, details)

        if set(row) - ROW_FIELDS:
            refuse(f"unknown fields {sorted(set(row) - ROW_FIELDS)}")
        found = by_key.get(row.get("asset_id") or row.get("filename"), ())
        if len(found) != 1:
            refuse("no such asset in this project")
        kinds = {c["id"]: c["allowed_types"] for c in self.project.classes}
        if row.get("type") not in kinds.get(row.get("class_id"), ()):
            refuse("the class does not allow this type")
        geometry = row.get("geometry") or {}
        if set(geometry) != {"type", *"xywh"} or geometry["type"] != row["type"]:
            refuse("geometry: expected a bbox")
        if not (geometry["w"] > 0 and geometry["h"] > 0):
            refuse("geometry: w and h must be greater than 0")
        annotation_id = str(uuid.UUID(row.get("id") or new_id()))
        if annotation_id in ids:
            refuse("id exists")  # This call only creates.
        ids.add(annotation_id)
        if self.server.decimals is not None:
            geometry = {
                k: v if k == "type" else round(v, self.server.decimals)
                for k, v in geometry.items()
            }
        names = {i: name for name, i in self.project.class_ids.items()}
        others = {"id": annotation_id, "data": row.get("data", {})}
        drawn = Asset(self.project, "", b"", None, [], id=found[0].id).draw(
            names[row["class_id"]], geometry=geometry, **others
        )
        return found[0], drawn

    def delete(self):
        ids = self.check_body({"ids"})["ids"]
        if not 1 <= len(ids) <= MAX_DELETED:
            raise Refused(422, "VALIDATION_ERROR", f"1 to {MAX_DELETED} ids")
        results = []
        for each in ids:
            gone = [a for a in self.project.assets if a.annotations.pop(each, None)]
            results.append({"id": each, "status": "deleted" if gone else "skipped"})
        deleted = sum(each["status"] == "deleted" for each in results)
        counts = {"total": len(ids), "deleted": deleted, "skipped": len(ids) - deleted}
        return {**counts, "results": results}

    def update_tags(self):
        body = self.check_body({"asset_ids", "tags_add", "tags_remove"})
        if len(body["asset_ids"]) > MAX_ROWS:
            raise Refused(413, "PAYLOAD_TOO_LARGE", "Use bulk-update-tags.")
        if not self.server.free_tags:
            raise Refused(400, "BAD_REQUEST", "This tag is not in the palette.")
        results = []
        for asset_id in body["asset_ids"]:
            found = [a for a in self.project.assets if a.id == asset_id]
            new = [t for a in found for t in body["tags_add"] if t not in a.tags]
            for asset in found:
                asset.tags += new
            results.append({"id": asset_id, "status": "updated" if new else "skipped"})
        total, updated = len(results), sum(r["status"] == "updated" for r in results)
        counts = {"total": total, "updated": updated, "skipped": total - updated}
        return {**counts, "results": results}

    def bulk_delete(self):
        body = self.check_body({"asset_ids", "filter", "source", "class_ids"})
        if ("asset_ids" in body) == ("filter" in body):
            raise Refused(422, "VALIDATION_ERROR", "exactly one of asset_ids, filter")
        total = skipped = 0
        for asset in self.project.assets:
            if asset.id not in body.get("asset_ids", [asset.id]):
                continue
            for each in list(asset.annotations.values()):
                if body.get("source", each["source"]) != each["source"]:
                    continue
                if each["locked"]:
                    skipped += 1
                    continue
                total += 1
                del asset.annotations[each["id"]]
        job = {
            "id": new_id(),
            "kind": "bulk_delete_annotations",
            "status": "completed",
            "target": {},
            "total": total,
            "processed": total,
            "succeeded": total,
            "result_summary": {"skipped_locked": skipped} if skipped else {},
            "created_at": now(),
        }
        self.server.jobs[job["id"]] = job
        return job

    def check_body(self, fields, size=MAX_BYTES):
        self.check_query()
        if not isinstance(self.content, dict) or set(self.content) - fields:
            raise Refused(
                422, "VALIDATION_ERROR", f"expected the fields {sorted(fields)}"
            )
        if self.size > size:
            raise Refused(413, "PAYLOAD_TOO_LARGE", f"over {size} bytes")
        return self.content

    def check_query(self, *names):
        unknown = set(self.query) - set(names)
        if unknown:
            raise Refused(422, "VALIDATION_ERROR", f"unknown parameters {unknown}")

    def page(self, rows, names, cap=100):
        """Returns one page of rows; the cursor is the number of the next."""
        self.check_query("limit", "cursor", *names)
        limit = int(self.query.get("limit", ["50"])[0])
        if not 1 <= limit <= cap:
            raise Refused(422, "VALIDATION_ERROR", f"limit: 1 to {cap}, got {limit}")
        first = int(self.query.get("cursor", ["0"])[0])
        end = first + limit
        cursor = str(end) if end < len(rows) else None
        return {"items": rows[first:end], "next_cursor": cursor}

    def find(self, things, thing_id, code):
        for thing in things:
            if thing.id == thing_id:
                return thing
        raise Refused(404, code, "No such thing.")


def _error(code, message, details=None):
    error = {"code": code, "message": message, "hint": None, "request_id": "r-1"}
    return json.dumps({"error": error | {"details": details}}).encode()


class _Handler(BaseHTTPRequestHandler):
    """Reads a request and writes the answer of a function."""

    protocol_version = "HTTP/1.1"
    # Otherwise each answer waits for an acknowledgement of its headers.
    disable_nagle_algorithm = True

    def __init__(self, respond, *arguments):
        self._respond_to = respond
        super().__init__(*arguments)

    def _answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self._respond_to(self.command, self.path, self.headers, body)
        if answer is None:
            self.close_connection = True
            return
        status, headers, content = answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        is_short = headers.pop("X-Short", None)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if is_short else content)
        self.close_connection = self.close_connection or bool(is_short)

    do_GET = do_POST = _answer

    def log_message(self, *arguments):
        pass
