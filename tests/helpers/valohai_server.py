"""A stand-in for Valohai's API on this machine, for tests with the real `vh`.

It answers the requests of valohai-cli 0.37, and rejects all others. It unpacks the
packages that it receives, and runs steps from them with the project's own runner; see
`valohai_worker`.

    with ValohaiServer(folder) as server:
        datum = server.add_file("images.zip", path)
        ...  # `vh login --host URL --token TOKEN`, `vh exec run --adhoc …`
        server.executions[0].wait(seconds)
"""

import dataclasses
import hashlib
import io
import json
import re
import secrets
import signal
import tarfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from email import message_from_bytes
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import valohai_payloads
import valohai_yaml
from valohai_payloads import Rejected, check_fields
from valohai_worker import (
    Datum,
    Execution,
    Job,
    Worker,
    distributed_configs,
    new_id,
    now,
)

from valohai_step.local import nodes as local_nodes

PROJECT = "train-superbai"
# For executions that run at the same time, and for what waits for them.
_THREADS = 16

# The method that answers each request. ID stands for any part of a path.
_KIND = "(executions|pipelines|tasks)"
_ROUTES = {
    "POST /api/v0/get-token/": "_log_in",
    "GET /api/v0/users/me/": "_show_user",
    "GET /api/v0/projects/": "_list_projects",
    "GET /api/v0/projects/ID/": "_show_project",
    "POST /api/v0/projects/ID/import-package/": "_import_package",
    "GET /api/v0/commits/ID/": "_show_commit",
    f"POST /api/v0/{_KIND}/": "_create",
    f"GET /api/v0/{_KIND}/": "_list",
    f"GET /api/v0/{_KIND}/ID/": "_show",
    f"POST /api/v0/{_KIND}/ID/stop/": "_stop",
    "GET /api/v0/executions/ID/events/": "_list_events",
    "GET /api/v0/data/": "_list_data",
    "GET /api/v0/data/ID/download/": "_show_download",
    "GET /files/ID/[^/]+": "_read_file",
    "POST /worker/ID/status-detail/": "_set_status_detail",
}
# They need no token of the user: the address of a file is secret, and an execution has
# its own token.
_OPEN = ("_log_in", "_read_file", "_set_status_detail")


class Commit(NamedTuple):
    """A package that was sent.

    Attributes:
        identifier: `~` and the package's SHA-256.
        folder: where it is unpacked.
        description: of the repository's state.
        config: the parsed valohai.yaml.
    """

    identifier: str
    folder: Path
    description: str
    config: valohai_yaml.objs.Config


class Request(NamedTuple):
    """A request; `query` is a dict from names to lists of values."""

    method: str
    path: str
    query: dict
    headers: dict
    body: bytes

    def json(self):
        if self.headers.get("Content-Type") != "application/json":
            raise Rejected(415, {"detail": "Unsupported media type in request."})
        return json.loads(self.body)


class ValohaiServer:
    """Valohai for one user with one project; use as a context manager.

    Attributes:
        url: of the API.
        token, username, password: the accepted ones.
        project: dict of its project.
        commits: dict from identifiers to `Commit`.
        executions, pipelines, tasks: lists of `Job`, counter 1 first.
        errors: tracebacks of defects of the stand-in.
    """

    def __init__(self, folder):
        self.token, self.password = secrets.token_hex(20), secrets.token_hex(8)
        self.username = "somebody"
        self.project = {"id": new_id(), "name": PROJECT, "yaml_path": "valohai.yaml"}
        self.commits, self.errors = {}, []
        self.executions, self.pipelines, self.tasks = [], [], []
        self._packages = folder / "packages"
        self._worker = Worker(folder)
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_THREADS)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        for job in (*self.pipelines, *self.tasks):
            job.stopping = True
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not all(
            job.future.done()
            for job in (*self.executions, *self.pipelines, *self.tasks)
            if job.future
        ):
            for execution in list(self.executions):
                execution.kill(signal.SIGKILL)
            time.sleep(0.1)
        self._pool.shutdown()
        self._http.shutdown()
        self._http.server_close()

    def add_file(self, name, path):
        """Adds a file as if a user had uploaded it; returns its `Datum`."""
        datum = Datum(name, path)
        self._worker.data[datum.id] = datum
        return datum

    def address(self, datum):
        """Returns the URL of the file of a `Datum`."""
        return f"{self.url}/files/{datum.id}/{datum.path.name}"

    def restart(self, counter):
        """Kills an execution as if its machine were lost, and restarts it.

        Outputs that were not uploaded are lost; the others are the input `_restart` of
        the new execution, which is returned.
        """
        interrupted = self.executions[counter - 1]
        if not interrupted.payload.get("runtime_config", {}).get("autorestart"):
            raise ValueError(f"execution {counter} was started without autorestart")
        interrupted.kill(signal.SIGKILL)
        interrupted.wait(60)
        files = [(datum.path, datum.path.name) for datum in interrupted.outputs]
        node = dataclasses.replace(
            interrupted.node, metadata=[], process=None, files={"_restart": files}
        )
        return self._start(self._add(interrupted.payload, node, interrupted.repository))

    def answer(self, request):
        """Returns the content for a `Request`: bytes, or what JSON can express."""
        line = f"{request.method} {request.path}"
        for route, name in _ROUTES.items():
            match = re.fullmatch(route.replace("ID", "([^/]+)"), line)
            if match is None:
                continue
            authorization = request.headers.get("Authorization")
            if name not in _OPEN and authorization != f"Token {self.token}":
                raise Rejected(401, {"detail": "Invalid token."})
            return getattr(self, name)(request, *match.groups())
        raise Rejected(404, {"detail": "Not found."})

    def _log_in(self, request):
        form = parse_qs(request.body.decode())
        if form != {"username": [self.username], "password": [self.password]}:
            message = "Unable to log in with provided credentials."
            raise Rejected(400, {"non_field_errors": [message]})
        return {"token": self.token}

    def _show_user(self, request):
        return {"id": 1, "username": self.username}

    def _list_projects(self, request):
        owner = {"id": 1, "username": self.username}
        urls = {"display": f"{self.url}/p/{self.username}/{PROJECT}/"}
        return {"results": [self.project | {"owner": owner, "urls": urls}]}

    def _show_project(self, request, project_id):
        return _get({self.project["id"]: self.project}, project_id)

    def _import_package(self, request, project_id):
        self._show_project(request, project_id)
        kind = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n"
        form = {
            part.get_param("name", header="Content-Disposition"): part
            for part in message_from_bytes(kind.encode() + request.body).get_payload()
        }
        check_fields(form, "package")
        package, description, yaml_path = (
            form[name].get_payload(decode=True)
            for name in ("data", "description", "yaml_path")
        )
        identifier = f"~{hashlib.sha256(package).hexdigest()}"
        folder = self._packages / identifier[1:13]
        try:
            with tarfile.open(fileobj=io.BytesIO(package), mode="r:gz") as tar:
                tar.extractall(folder, filter="data")
            config = valohai_yaml.parse((folder / yaml_path.decode()).read_text())
        except (tarfile.TarError, OSError, valohai_yaml.ValidationErrors) as error:
            raise Rejected(400, {"data": [str(error)]}) from error
        commit = Commit(identifier, folder, description.decode(), config)
        self.commits[identifier] = commit
        return self._show_commit(request, identifier)

    def _show_commit(self, request, identifier):
        return {"identifier": _get(self.commits, identifier).identifier, "adhoc": True}

    def _create(self, request, kind):
        payload = request.json()
        check_fields(payload, kind)
        self._show_project(request, payload["project"])
        create = {
            "executions": self._create_execution,
            "pipelines": self._create_pipeline,
            "tasks": self._create_task,
        }
        nodes = payload.get("nodes", [{"template": payload}])
        nodes = [node for node in nodes if node.get("type") != "mimic"]
        identifiers = {node["template"]["commit"] for node in nodes}
        if len(identifiers) > 1 or not identifiers <= set(self.commits):
            raise Rejected(400, {"commit": ["Invalid commit."]})
        commit = self.commits[identifiers.pop()]
        return self._describe(kind, create[kind](payload, commit))

    def _create_execution(self, payload, commit):
        plan = valohai_payloads.plan_execution(
            payload, commit.config, self._worker.addressable
        )
        (node,) = plan.nodes.values()
        return self._start(self._add(payload, node, commit.folder))

    def _start(self, execution):
        """Starts an execution outside of pipelines and tasks; returns it."""
        run = f"execution-{execution.counter}"
        execution.future = self._pool.submit(self._worker.run, execution, run)
        return execution

    def _create_pipeline(self, payload, commit):
        reused = {}
        for node in payload["nodes"]:
            if node["type"] == "mimic":  # Reuses the outputs of an earlier run.
                check_fields(node, "mimic")
                reused[node["name"]] = self._find("executions", node.pop("source"))
                template = reused[node["name"]].payload
                node |= {"type": "execution", "template": template}
        plan = valohai_payloads.plan_pipeline(
            payload, commit.config, self._worker.addressable
        )
        pipeline = Job(len(self.pipelines) + 1, payload, commit.folder)
        self.pipelines.append(pipeline)

        def run_node(state, run, node, edges, repository):
            if pipeline.stopping:
                return 1
            if node.name in reused:
                outputs = state / "outputs" / run / node.name
                outputs.parent.mkdir(parents=True, exist_ok=True)
                outputs.symlink_to(reused[node.name].folder)
                return 0
            execution = self._add(plan.templates[node.name], node, repository)
            pipeline.executions.append(execution)
            return self._worker.run(execution, run, edges)

        def run():
            pipeline.status = "started"
            reason = local_nodes.run_nodes(
                self._worker.state,
                f"pipeline-{pipeline.counter}",
                plan.nodes,
                plan.edges,
                commit.folder,
                run_node,
            )
            statuses = {execution.status for execution in pipeline.executions}
            ended = "stopped" if statuses <= {"complete", "stopped"} else "error"
            pipeline.status = ended if reason else "complete"

        pipeline.future = self._pool.submit(run)
        return pipeline

    def _create_task(self, payload, commit):
        plans = valohai_payloads.plan_task(
            payload, commit.config, self._worker.addressable
        )
        task = Job(len(self.tasks) + 1, payload, commit.folder)
        self.tasks.append(task)
        for plan in plans:
            ((name, node),) = plan.nodes.items()
            execution = self._add(plan.templates[name], node, commit.folder)
            execution.node.environment["VH_TASK_ID"] = str(task.id)
            task.executions.append(execution)
        is_distributed = payload["type"] == "distributed"
        if is_distributed:
            configs = distributed_configs(task.id, len(plans))
            for execution, config in zip(task.executions, configs, strict=True):
                number = config["config"]["member_id"]
                execution.node.config["distributed"] = config
                execution.node.environment |= {
                    "VH_DIST_MEMBER_ID": number,
                    "VH_DIST_MEMBER_INDEX": number,
                    "VH_DIST_MEMBER_COUNT": str(len(plans)),
                }

        def run_one(execution):
            if task.stopping:
                execution.status = "stopped"
                return
            status = self._worker.run(execution, f"execution-{execution.counter}")
            if status and payload.get("on_child_error") == "stop_all_and_error":
                self._stop(None, "tasks", task.id)

        def run():
            task.status = "started"
            limit = payload.get("maximum_queued_executions", 1)
            with ThreadPoolExecutor(len(plans) if is_distributed else limit) as pool:
                list(pool.map(run_one, task.executions))
            statuses = {execution.status for execution in task.executions}
            task.status = "complete" if statuses == {"complete"} else "error"

        task.future = self._pool.submit(run)
        return task

    def _add(self, payload, node, folder):
        """Adds an execution of a node; returns it."""
        with self._lock:
            counter = len(self.executions) + 1
            execution = Execution(counter, payload, folder, node=node)
            self.executions.append(execution)
        node.config = {
            "execution": {
                "valohai.execution-counter": counter,
                "valohai.execution-id": execution.id,
                "valohai.execution-step": node.step.name,
                "valohai.execution-title": payload.get("title"),
                "valohai.project-name": f"{self.username}/{PROJECT}",
            },
            "api": {
                "set_status_detail": {
                    "method": "POST",
                    "url": f"{self.url}/worker/{execution.id}/status-detail/",
                    "headers": {"Authorization": f"Token {execution.secret}"},
                }
            },
        }
        return execution

    def _list(self, request, kind):
        counters = request.query.get("counter")
        return {
            "results": [
                self._describe(kind, job)
                for job in reversed(getattr(self, kind))
                if not counters or str(job.counter) in counters
            ]
        }

    def _show(self, request, kind, key):
        return self._describe(kind, self._find(kind, key))

    def _find(self, kind, key):
        """Returns a job by its id, `<project>:<counter>` or `<project>:latest`."""
        jobs = getattr(self, kind)
        keys = {job.id: job for job in jobs}
        keys |= {f"{self.project['id']}:{job.counter}": job for job in jobs}
        keys |= {f"{self.project['id']}:latest": job for job in jobs}
        return _get(keys, key)

    def _stop(self, request, kind, key):
        job = self._find(kind, key)
        job.stopping = True
        for execution in [job] if kind == "executions" else job.executions:
            execution.kill(signal.SIGTERM)
        return {"message": "Stopping."}

    def _describe(self, kind, job):
        url = f"{self.url}/api/v0/{kind}/{job.id}/"
        display = f"{self.url}/p/{self.username}/{PROJECT}/{kind}/{job.counter}/"
        content = {
            "id": job.id,
            "counter": job.counter,
            "ctime": job.created,
            "project": self.project,
            "status": job.status,
            "title": job.payload.get("title"),
            "url": url,
            "urls": {"display": display, "stop": f"{url}stop/"},
        }
        if kind == "pipelines":
            content["nodes"] = [
                {"name": execution.node.name, "id": execution.id}
                for execution in job.executions
            ]
        if kind == "executions":
            inputs = job.payload.get("inputs", {}).items()
            content |= {
                "duration": None,
                "environment": {"name": "this machine"},
                "inputs": [{"name": name, "urls": urls} for name, urls in inputs],
                "parameters": job.node.parameters,
                "status_detail": (job.status_details or [""])[-1],
                "step": job.node.step.name,
            }
        return content

    def _list_events(self, request, key):
        events = list(self._find("executions", key).events)
        limit = int(request.query.get("limit", ["200"])[0])
        return {
            "total": len(events),
            "events": events[-limit:],
            "truncated": 0 < limit < len(events),
        }

    def _list_data(self, request):
        data = list(self._worker.data.values())
        if "output_execution" in request.query:
            (key,) = request.query["output_execution"]
            data = self._find("executions", key).outputs
        rows = [
            {
                "id": datum.id,
                "name": datum.name,
                "size": datum.path.stat().st_size,
                "ctime": now(),
                "uri": datum.uri,
                "output_execution": datum.counter and {"counter": datum.counter},
            }
            for datum in data
        ]
        start = int(request.query.get("offset", ["0"])[0])
        return {"results": rows[start:][: int(request.query["limit"][0])]}

    def _show_download(self, request, datum_id):
        return {"url": self.address(_get(self._worker.data, datum_id))}

    def _read_file(self, request, datum_id):
        return _get(self._worker.data, datum_id).path.read_bytes()

    def _set_status_detail(self, request, execution_id):
        execution = self._find("executions", execution_id)
        if request.headers.get("Authorization") != f"Token {execution.secret}":
            raise Rejected(403, {"detail": "Invalid token."})
        content = request.json()
        check_fields(content, "status detail")
        execution.status_details.append(content["status_detail"])
        return {}


def _get(values, key):
    """Returns the value of a key; rejects the request if there is none."""
    if key not in values:
        raise Rejected(404, {"detail": "Not found."})
    return values[key]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, valohai, *arguments):
        self._valohai = valohai
        super().__init__(*arguments)

    def log_message(self, *arguments):
        """Logs nothing: tests check the state of the server."""

    def do_GET(self):
        url = urlsplit(self.path)
        size = int(self.headers.get("Content-Length") or 0)
        request = Request(
            self.command,
            re.sub("/+", "/", url.path),
            parse_qs(url.query),
            self.headers,
            self.rfile.read(size),
        )
        status = 200
        try:
            content = self._valohai.answer(request)
        except Rejected as rejected:
            status, content = rejected.answer
        except Exception:
            self._valohai.errors.append(traceback.format_exc())
            status, content = 500, {"detail": "Internal error."}
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET
