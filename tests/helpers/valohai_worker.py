"""Does around a step what Valohai's workers do, for the stand-in for Valohai's API.

The step itself is run by the project's own `local/worker.py`. Here are what comes
before and after: a worker fetches the inputs, takes files away that a step wants
uploaded at once, shows the log, and keeps the outputs with their properties.
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
# What an execution is called that a signal has ended.
_ENDED_BY = {signal.SIGTERM: "stopped", signal.SIGKILL: "crashed"}


def new_id():
    return str(uuid4())


def now():
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass
class Datum:
    """A file that Valohai keeps.

    Attributes:
        name: that it has below the outputs of its step; may have folders.
        path: where it lies here.
        counter: of the execution that it is an output of, None where somebody has
            uploaded it.
        is_live: whether it was taken while the step ran.
        properties: what the step has said of it, see `valohai.output_properties`.
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
        counter: its number among those of its kind, from 1.
        payload: what was posted; of a pipeline's execution, the template of its node.
        repository: the folder of the package that it runs.
        executions: list of `Execution`; those of a pipeline come as their turns do.
        stopping: whether it was told to stop.
        future: what runs it; of those that belong to another, None.
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
        """Waits for its end; returns its status.

        Raises:
            TimeoutError: it has not ended in time.
        """
        deadline = time.monotonic() + seconds
        while self.status in ("created", "started"):
            if self.future and self.future.done():
                self.future.result()  # Raises an error of the stand-in's own.
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.status} after {seconds} s: {self.payload}")
            time.sleep(POLL_SECONDS)
        return self.status


@dataclass(kw_only=True)
class Execution(Job):
    """One run of a step.

    Attributes:
        node: the `worker.Node` that it runs.
        secret: with it the step may tell the API its status.
        events: lines of its log, dicts as the API has them.
        status_details: list of what the step said it was at.
        outputs: list of `Datum`, in the order in which they were taken.
        properties: dict from names of outputs to what the step has said of them.
        folder: of its outputs as they travel along edges.
        signal: that ends it, None otherwise; `is_signalled` once it was sent.
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
        """Its log."""
        return "\n".join(event["message"] for event in self.events)

    def output(self, name):
        """Returns the `Datum` of a name."""
        return next(datum for datum in self.outputs if datum.name == name)

    def kill(self, number):
        """Ends all its processes by a signal; one that has not begun never will."""
        self.signal = self.signal or number
        process = self.node.process
        if process and process.returncode is None:
            self.is_signalled = True
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)


class Worker:
    """Runs executions and keeps their outputs.

    Attributes:
        state: the folder of all runs, see `local/runner.py`.
        data: dict from ids to `Datum`.
        aliases: dict from aliases to the newest `Datum` that was given each.
    """

    def __init__(self, folder):
        self.state = folder / "state"
        self.data, self.aliases = {}, {}
        self._store = folder / "data"

    @property
    def addressable(self):
        """Dict of every `Datum` by what can follow `datum://`."""
        return self.aliases | self.data

    def run(self, execution, run, edges=()):
        """Runs an execution to its end; returns its exit status.

        Args:
            execution: an `Execution`.
            run: the name of its pipeline's run, or of its own.
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
        if execution.signal != signal.SIGKILL:  # With the machine go its files.
            self._keep_outputs(execution)
        ended = "error" if status else "complete"
        execution.status = _ENDED_BY.get(execution.signal, ended)
        execution.log("status", f"{execution.status}, exit status {status}")
        return status

    def _watched(self, execution, place):
        """Takes uploads and lines of the log as they come, within the block."""
        outputs = execution.folder
        log = self.state / "runs" / place / "log.txt"
        position = 0

        def look(is_last):
            nonlocal position
            if execution.signal and not execution.is_signalled:
                execution.kill(execution.signal)  # It came before the process.
            self._take_uploads(execution, outputs)
            text = log.read_bytes()[position:] if log.is_file() else b""
            whole = text if is_last else text[: text.rfind(b"\n") + 1]
            position += len(whole)
            for line in whole.decode(errors="replace").splitlines():
                execution.log("stdout", line)

        return watched(look, POLL_SECONDS)

    def _take_uploads(self, execution, outputs):
        """Takes the outputs that a step has made read-only out of its folder."""
        for path in files(outputs):
            with suppress(FileNotFoundError):  # The step may take it, too.
                if not path.stat().st_mode & 0o222:
                    self._keep(execution, path, outputs, is_live=True)
                    path.unlink()

    def _keep_outputs(self, execution):
        outputs = execution.folder
        taken = list(execution.outputs)
        for path in files(outputs):
            if path.name != _PROPERTIES:
                self._keep(execution, path, outputs)
        if (outputs / _PROPERTIES).is_file():
            for line in (outputs / _PROPERTIES).read_text().splitlines():
                entry = json.loads(line)
                execution.properties[entry["file"]] = entry["metadata"]
        for datum in execution.outputs:
            datum.properties = execution.properties.get(datum.name, {})
            if "valohai.alias" in datum.properties:
                self.aliases[datum.properties["valohai.alias"]] = datum
        for datum in taken:  # Edges carry what was uploaded earlier, too.
            (outputs / datum.name).parent.mkdir(parents=True, exist_ok=True)
            os.link(datum.path, outputs / datum.name)

    def _keep(self, execution, path, outputs, is_live=False):
        name = path.relative_to(outputs).as_posix()
        if any(datum.name == name for datum in execution.outputs):
            raise ValueError(f"{name}: written again after it was uploaded")
        datum = Datum(name, path, execution.counter, is_live)
        datum.path = self._store / datum.id / path.name
        datum.path.parent.mkdir(parents=True)
        os.link(path, datum.path)
        self.data[datum.id] = datum
        execution.outputs.append(datum)


@contextmanager
def watched(look, seconds):
    """Calls `look(is_last)` every so many seconds in the block, and at its end.

    What it raises, the block raises at its end.
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
    """Yields the files below a folder that are not hidden; it may change meanwhile."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(place, name)


def distributed_configs(group, count):
    """Returns what the workers of a distributed task find in `distributed.json`."""
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
