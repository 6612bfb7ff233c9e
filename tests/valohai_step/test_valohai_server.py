"""The stand-in for Valohai: what it rejects, and what it does around a step."""

import io
import json
import signal
import tarfile
import time

import pytest
import requests
from valohai_server import ValohaiServer

SECONDS = 30
YAML = """
- step:
    name: write
    image: none
    command: python write.py {parameters}
    parameters:
      - {name: does, type: string, choices: [end, fail, wait, upload, twice]}
      - {name: number, type: integer, default: 3, min: 0, max: 10}
    inputs:
      - {name: file, optional: false, default: []}
    environment-variables:
      - {name: COLOUR, default: blue}
"""
WRITE = """
import json, os, pathlib, sys, time
config, inputs, outputs = (
    pathlib.Path(os.environ[f"VH_{n}_DIR"]) for n in ("CONFIG", "INPUTS", "OUTPUTS")
)
does = sys.argv[1].partition("=")[2]
parameters = json.loads((config / "parameters.json").read_text())
execution = json.loads((config / "execution.json").read_text())
found = sorted(p.relative_to(inputs).as_posix() for p in inputs.rglob("*.*"))
print(json.dumps({"number": parameters["number"], "files": found}), flush=True)
print(json.dumps({"counter": execution["valohai.execution-counter"]}), flush=True)
path = outputs / "a" / "x.bin"
for seconds in {"upload": [20], "twice": [20, 2], "wait": [20]}.get(does, []):
    path.parent.mkdir(exist_ok=True)
    path.write_text(does)
    path.chmod(0o444)
    deadline = time.monotonic() + seconds
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not path.exists()
(outputs / ".hidden").write_text("no output")
(outputs / "end.txt").write_text(os.environ["COLOUR"])
properties = {"file": "a/x.bin", "metadata": {"valohai.tags": ["t"]}}
(outputs / "valohai.metadata.jsonl").write_text(json.dumps(properties) + chr(10))
if does == "wait" and "_restart/x.bin" not in found:
    print("waiting", flush=True)
    time.sleep(60)
sys.exit(3 if does == "fail" else 0)
"""


@pytest.fixture
def server(tmp_path):
    with ValohaiServer(tmp_path / "valohai") as server:
        yield server
    assert server.errors == []


@pytest.fixture
def ask(server):
    """Sends a request as `vh` does; returns the content of the answer."""

    def send(method, path, status=200, token=None, **options):
        headers = {"Authorization": f"Token {token or server.token}"}
        with requests.Session() as session:
            session.trust_env = False  # No proxy.
            address = f"{server.url}/{path}"
            answer = session.request(method, address, headers=headers, **options)
        assert answer.status_code == status, answer.text
        return answer.json()

    return send


def package(**files):
    """Returns the bytes of a tar.gz of texts by name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.fixture
def send_package(server, ask):
    def send(data, status=200):
        form = {"description": "", "yaml_path": "valohai.yaml"}
        path = f"api/v0/projects/{server.project['id']}/import-package/"
        return ask("post", path, status, data=form, files={"data": ("data.tgz", data)})

    return send


@pytest.fixture
def payload(server, send_package, tmp_path):
    """The payload that starts the step `write` with a file."""
    (tmp_path / "own.txt").write_text("own")
    datum = server.add_file("own.txt", tmp_path / "own.txt")
    sent = send_package(package(**{"valohai.yaml": YAML, "write.py": WRITE}))
    return {
        "commit": sent["identifier"],
        "project": server.project["id"],
        "step": "write",
        "inputs": {"file": [datum.uri]},
        "parameters": {"does": "end"},
        "environment_variables": {"COLOUR": "red"},
    }


def start(server, ask, payload, does):
    content = payload | {"parameters": {"does": does}}
    counter = ask("post", "api/v0/executions/", json=content)["counter"]
    return server.executions[counter - 1]


def wait_for(execution, text):
    deadline = time.monotonic() + SECONDS
    while text not in execution.text:
        assert time.monotonic() < deadline, execution.text
        time.sleep(0.05)


def test_tokens(server, ask):
    assert ask("get", "api/v0/users/me/")["username"] == server.username
    for path in ("users/me/", "projects/", "executions/", "data/"):
        ask("get", f"api/v0/{path}", 401, token="another")
    ask("get", "api/v0/unknown/", 404)
    ask("post", "worker/unknown/status-detail/", 404, json={"status_detail": "a"})


def test_what_is_rejected(server, ask, payload):
    for change, message in (
        ({"commit": "~unknown"}, "Invalid commit."),
        ({"step": "wright"}, "There is no step wright."),
        ({"colour": "red"}, "This field is not known."),
        ({"inputs": {}}, "input 'file' of write is missing"),
        ({"inputs": {"file": []}}, "input 'file' of write is missing"),
        ({"inputs": {"file": ["datum://unknown"]}}, "there is no such file"),
        ({"inputs": {"file": ["own.txt"]}}, "there is no such file"),
        (
            {"inputs": payload["inputs"] | {"files": ["http://a/b"]}},
            "unknown option --write.files",
        ),
        ({"parameters": {"number": 11}}, "expected a value from 0 to 10, got 11"),
        ({"parameters": {"number": "many"}}, "expected an integer, got 'many'"),
        ({"parameters": {"numbers": 1}}, "unknown option --write.numbers"),
    ):
        answer = ask("post", "api/v0/executions/", 400, json=payload | change)
        assert message in json.dumps(answer)
    for name in ("commit", "step", "inputs", "parameters"):
        less = {key: value for key, value in payload.items() if key != name}
        answer = ask("post", "api/v0/executions/", 400, json=less)
        assert answer == {name: ["This field is required."]}
    ask("post", "api/v0/executions/", 404, json=payload | {"project": "unknown"})
    ask("post", "api/v0/executions/", 415, data=json.dumps(payload))
    task = payload | {"type": "random_search", "parameters": {}}
    assert "random_search" in str(ask("post", "api/v0/tasks/", 400, json=task))
    assert server.executions == server.tasks == []


def test_packages_stay_inside_their_folder(server, send_package, tmp_path):
    for files in ({"../evil.txt": "evil", "valohai.yaml": YAML}, {"write.py": WRITE}):
        send_package(package(**files), 400)
    send_package(b"no archive", 400)
    assert not list(tmp_path.rglob("evil.txt")) and not server.commits


def test_an_execution(server, ask, payload, tmp_path):
    content = payload | {"parameters": {"does": "end", "number": "4"}, "title": "T"}
    shown = ask("post", "api/v0/executions/", json=content)
    (execution,) = server.executions
    assert execution.wait(SECONDS) == "complete", execution.text
    assert shown["counter"] == 1 and shown["title"] == "T"
    first, second = execution.node.metadata
    assert first == {"number": 4, "files": ["file/own.txt"]}
    assert second == {"counter": 1}
    (datum,) = execution.outputs
    assert (datum.name, datum.is_live) == ("end.txt", False)
    assert datum.path.read_text() == "red"
    events = ask("get", f"api/v0/executions/{shown['id']}/events/", params={"limit": 2})
    assert (events["total"], len(events["events"]), events["truncated"]) == (4, 2, True)
    assert events["events"][-1]["message"] == "complete, exit status 0"
    execution = start(server, ask, payload, "fail")
    assert execution.wait(SECONDS) == "error"
    assert "error, exit status 3" in execution.text


def test_a_live_upload(server, ask, payload):
    execution = start(server, ask, payload, "upload")
    assert execution.wait(SECONDS) == "complete", execution.text
    first, last = execution.outputs
    assert (first.name, first.is_live) == ("a/x.bin", True)
    assert (last.name, last.is_live) == ("end.txt", False)
    assert first.path.read_text() == "upload"
    assert first.properties == {"valohai.tags": ["t"]} and not last.properties
    with pytest.raises(ValueError, match="a/x.bin: written again after it was upl"):
        start(server, ask, payload, "twice").wait(SECONDS)


def test_a_lost_machine(server, ask, payload):
    again = payload | {"runtime_config": {"autorestart": True}}
    interrupted = start(server, ask, again, "wait")
    wait_for(interrupted, "waiting")
    restarted = server.restart(1)
    assert interrupted.status == "crashed"
    assert [datum.name for datum in interrupted.outputs] == ["a/x.bin"]
    assert restarted.wait(SECONDS) == "complete"
    files, counter = restarted.node.metadata
    assert files["files"] == ["_restart/x.bin", "file/own.txt"]
    assert counter == {"counter": 2}
    assert [datum.name for datum in restarted.outputs] == ["a/x.bin", "end.txt"]
    plain = start(server, ask, payload, "end")
    with pytest.raises(ValueError, match="without autorestart"):
        server.restart(plain.counter)


def test_stopping(server, ask, payload):
    execution = start(server, ask, payload, "wait")
    wait_for(execution, "waiting")
    ask("post", f"api/v0/executions/{execution.id}/stop/")
    assert execution.wait(SECONDS) == "stopped"
    assert [datum.name for datum in execution.outputs] == ["a/x.bin", "end.txt"]


def test_a_task_ends_with_its_first_failure(server, ask, payload):
    rule = {"style": "multiple", "rules": {"items": ["wait", "fail"]}}
    task = payload | {
        "type": "grid_search",
        "parameters": {"does": rule},
        "maximum_queued_executions": 2,
        "on_child_error": "stop_all_and_error",
    }
    ask("post", "api/v0/tasks/", json=task)
    (task,) = server.tasks
    assert task.wait(SECONDS) == "error"
    assert [e.status for e in task.executions] == ["stopped", "error"]


def test_nothing_is_left_running(server, ask, payload):
    execution = start(server, ask, payload, "wait")
    wait_for(execution, "waiting")
    server.__exit__()
    assert execution.node.process.poll() == -signal.SIGKILL
    # Its log is complete: nothing is left that could write to it.
    assert execution.status == "crashed" and execution.future.done()
