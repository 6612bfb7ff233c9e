"""A stand-in for Valohai's workers, used by the stand-in for its API.

The project's own `local/worker.py` runs the step. This file does the rest of a worker's
work: it fetches the inputs, uploads files while the step runs, collects the log, and
stores the outputs with their properties.
"""

import json
import os
import secrets
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from valohai_step.local import worker
from yolov3_tf2.errors import InputError

POLL_SECONDS = 0.1
_PROPERTIES = "valohai.metadata.jsonl"
# The status of an execution that was ended by a signal.
_ENDED_BY = {signal.SIGTERM: "stopped", signal.SIGKILL: "crashed"}


def new_id():
    return str(uuid4())


def now():
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass
class Datum:
    """A stored file.

    Attributes:
        name: below the outputs of its step; may have folders.
        path: of the file on this machine.
        counter: of the execution that has written it, None if a user has uploaded it.
        is_live: whether it was uploaded while the step ran.
        properties: set by the step, see `valohai.output_properties`.
    """

    name: str
    path: Path
    counter: int | None = None
    is_live: bool = False
    properties: dict = field(default_factory=dict)
    id: str = field(default_factory=new_id)

    @property
    def uri(self):
        return f"datum://{self.id}"


@dataclass
class Job:
    """An execution, a pipeline or a task.

    Attributes:
        counter: its number among jobs of its kind, from 1.
        payload: of the request; for an execution of a pipeline, its node's template.
        repository: the folder of the package that it runs.
        executions: list of `Execution`; a pipeline adds each when it starts.
        stopping: whether it was asked to stop.
        future: of the thread that runs it; None for executions of pipelines and tasks.
    """

    counter: int
    payload: dict
    repository: Path
    status: str = "created"
    executions: list = field(default_factory=list)
    stopping: bool = False
    future: Future | None = None
    id: str = field(default_factory=new_id)
    created: str = field(default_factory=now)

    def wait(self, seconds):
        """Waits until it ends; returns its status.

        Raises:
            TimeoutError: it does not end in time.
        """
        deadline = time.monotonic() + seconds
        while self.status in ("created", "started"):
            if self.future and self.future.done():
                self.future.result()  # Raises errors of the stand-in itself.
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.status} after {seconds} s: {self.payload}")
            time.sleep(POLL_SECONDS)
        return self.status


@dataclass(kw_only=True)
class Execution(Job):
    """One run of a step.

    Attributes:
        node: the `worker.Node` that it runs.
        secret: the token with which the step sends its status.
        events: lines of its log, as dicts of the API.
        status_details: list of the texts that the step has sent as its status.
        outputs: list of `Datum`, in the order in which they were stored.
        properties: dict from names of outputs to their properties.
        folder: of its outputs, for the edges of its pipeline.
        signal: that ends it, None if there is none.
        is_signalled: whether the signal was sent.
    """

    node: worker.Node
    secret: str = field(default_factory=secrets.token_hex)
    events: list = field(default_factory=list)
    status_details: list = field(default_factory=list)
    outputs: list = field(default_factory=list)
    properties: dict = field(default_factory=dict)
    folder: Path | None = None
    signal: int | None = None
    is_signalled: bool = False

    def log(self, stream, message):
        self.events.append({"stream": stream, "time": now(), "message": message})

    @property
    def text(self):
        """The lines of its log as one text."""
        return "\n".join(event["message"] for event in self.events)

    def output(self, name):
        """Returns the output of a name, a `Datum`."""
        return next(datum for datum in self.outputs if datum.name == name)

    def kill(self, number):
        """Sends a signal to all its processes, as soon as they have started."""
        self.signal = self.signal or number
        process = self.node.process
        if process and process.returncode is None:
            self.is_signalled = True
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)


class Worker:
    """Runs executions and stores their outputs.

    Attributes:
        state: the folder of all runs, see `local/runner.py`.
        data: dict from ids to `Datum`.
        aliases: dict from each alias to the newest `Datum` that has it.
    """

    def __init__(self, folder):
        self.state = folder / "state"
        self.data, self.aliases = {}, {}
        self._folder = folder / "data"

    @property
    def addressable(self):
        """Dict of every `Datum` by its id and its alias, for `datum://` URIs."""
        return self.aliases | self.data

    def run(self, execution, run, edges=()):
        """Runs an execution to its end; returns its exit status.

        Args:
            execution: an `Execution`.
            run: name of the run of its pipeline, or of its own run.
            edges: of its pipeline.
        """
        node = execution.node
        place = Path(run) / node.name
        execution.folder = self.state / "outputs" / place
        execution.status = "started"
        status = 1
        try:
            fetched = {n: worker.fetch_files(self.state, node, n) for n in node.inputs}
            node.files = fetched | node.files
            if not execution.signal:
                execution.log("status", f"starting {node.step.name}")
                with self._watched(execution, place):
                    status = worker.run_node(
                        self.state, run, node, edges, execution.repository
                    )
        except InputError as error:
            execution.log("status", str(error))
        if execution.signal != signal.SIGKILL:  # A lost machine has no files.
            self._store_outputs(execution)
        ended = "error" if status else "complete"
        execution.status = _ENDED_BY.get(execution.signal, ended)
        execution.log("status", f"{execution.status}, exit status {status}")
        return status

    def _watched(self, execution, place):
        """Collects uploads and lines of the log while the block runs."""
        outputs = execution.folder
        log = self.state / "runs" / place / "log.txt"
        position = 0

        def look(is_last):
            nonlocal position
            if execution.signal and not execution.is_signalled:
                execution.kill(execution.signal)  # The signal came before the process.
            self._upload_live(execution, outputs)
            text = log.read_bytes()[position:] if log.is_file() else b""
            whole = text if is_last else text[: text.rfind(b"\n") + 1]
            position += len(whole)
            for line in whole.decode(errors="replace").splitlines():
                execution.log("stdout", line)

        return watched(look, POLL_SECONDS)

    def _upload_live(self, execution, outputs):
        """Uploads and deletes the outputs that a step has made read-only."""
        for path in files(outputs):
            with suppress(FileNotFoundError):  # The step may delete it too.
                if not path.stat().st_mode & 0o222:
                    self._store(execution, path, outputs, is_live=True)
                    path.unlink()

    def _store_outputs(self, execution):
        outputs = execution.folder
        uploaded = list(execution.outputs)
        for path in files(outputs):
            if path.name != _PROPERTIES:
                self._store(execution, path, outputs)
        if (outputs / _PROPERTIES).is_file():
            for line in (outputs / _PROPERTIES).read_text().splitlines():
                entry = json.loads(line)
                execution.properties[entry["file"]] = entry["metadata"]
        for datum in execution.outputs:
            datum.properties = execution.properties.get(datum.name, {})
            if "valohai.alias" in datum.properties:
                self.aliases[datum.properties["valohai.alias"]] = datum
        for datum in uploaded:  # Edges bring these files too.
            (outputs / datum.name).parent.mkdir(parents=True, exist_ok=True)
            os.link(datum.path, outputs / datum.name)

    def _store(self, execution, path, outputs, is_live=False):
        name = path.relative_to(outputs).as_posix()
        if any(datum.name == name for datum in execution.outputs):
            raise ValueError(f"{name}: written again after it was uploaded")
        datum = Datum(name, path, execution.counter, is_live)
        datum.path = self._folder / datum.id / path.name
        datum.path.parent.mkdir(parents=True)
        os.link(path, datum.path)
        self.data[datum.id] = datum
        execution.outputs.append(datum)


@contextmanager
def watched(look, seconds):
    """Calls `look(is_last)` every few seconds while the block runs, and at its end.

    If it raises an error, the block raises it at its end.
    """
    ended = threading.Event()

    def watch():
        is_last = False
        while not is_last:
            is_last = ended.wait(seconds)
            look(is_last)

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            yield
        finally:
            ended.set()
            watching.result()


def files(folder):
    """Yields the files below a folder that are not hidden; the folder may change."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(place, name)


def distributed_configs(group, count):
    """Returns the contents of `distributed.json` for each worker of a task."""
    members = [
        {
            "announce_time": now(),
            "identity": f"worker-{number}",
            "job_id": f"exec-{new_id()}",
            "member_id": str(number),
            "network": {
                "exposed_ports": {},
                "local_ips": ["127.0.0.1"],
                "public_ips": ["127.0.0.1"],
            },
        }
        for number in range(count)
    ]
    return [
        {
            "config": {
                "group_name": group,
                "member_id": member["member_id"],
                "required_count": count,
            },
            "members": members,
            "self": member,
        }
        for member in members
    ]
