"""What only Valohai has: versions and aliases of outputs, live uploads, a status."""

import http.server
import json
import threading

import pytest
import valohai

from valohai_step import execution
from yolov3_tf2.errors import InputError


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("VH_OUTPUTS_DIR", str(tmp_path / "outputs"))
    monkeypatch.setenv("VH_CONFIG_DIR", str(tmp_path))
    for name in ("model/model.json", "model/model.tf.index", "plots/curves.png"):
        path = tmp_path / "outputs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    data = tmp_path / "outputs" / "model" / "model.tf.data-00000-of-00001"
    data.write_text("data")
    return tmp_path / "outputs"


def properties(outputs):
    lines = (outputs / "valohai.metadata.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return {row["file"]: row["metadata"] for row in rows}


def test_empty_names_write_nothing(outputs):
    execution.add_to_dataset("")
    execution.add_model("model", "", "", [], "a note")
    assert not (outputs / "valohai.metadata.jsonl").exists()


def test_a_dataset_version_has_all_outputs(outputs, tmp_path):
    (tmp_path / "execution.json").write_text('{"valohai.execution-counter": 12}')
    execution.add_to_dataset("shapes")
    by_file = properties(outputs)
    assert sorted(by_file) == [
        "model/model.json",
        "model/model.tf.data-00000-of-00001",
        "model/model.tf.index",
        "plots/curves.png",
    ]
    (uri,) = {
        uri for values in by_file.values() for uri in values["valohai.dataset-versions"]
    }
    assert uri.startswith("dataset://shapes/20") and uri.endswith("-12")


def test_a_model_has_a_version_an_alias_and_tags(outputs):
    execution.add_model("model", "shapes", "best", ["a", "b"], "AP50 0.9")
    by_file = properties(outputs)
    aliases = {file: values["valohai.alias"] for file, values in by_file.items()}
    assert aliases == {
        "model/model.json": "best-json",
        "model/model.tf.index": "best-index",
        "model/model.tf.data-00000-of-00001": "best-data",
    }
    for values in by_file.values():
        assert values["valohai.tags"] == ["a", "b"]
        assert values["valohai.model-versions"] == [
            {
                "model_uri": "model://shapes/",
                "model_release_note": "AP50 0.9",
                "model_version_tags": ["a", "b"],
            }
        ]


def test_tags_alone(outputs):
    execution.add_model("model", "", "", ["a"], "")
    assert properties(outputs)["model/model.json"] == {"valohai.tags": ["a"]}


def test_a_sweep_moves_no_alias_and_no_version(outputs, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("VH_TASK_ID", "0123")
    execution.add_model("model", "shapes", "best", ["a"], "")
    assert properties(outputs)["model/model.json"] == {"valohai.tags": ["a"]}
    (line,) = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert "one of several executions of a task: model/ gets no version and no" in line


def test_a_distributed_task_is_no_sweep(outputs, monkeypatch, tmp_path):
    monkeypatch.setenv("VH_TASK_ID", "0123")
    monkeypatch.setattr(valohai.distributed, "is_distributed_task", lambda: True)
    execution.add_model("model", "", "best", [], "")
    assert properties(outputs)["model/model.json"] == {"valohai.alias": "best-json"}


@pytest.mark.parametrize("name", ["a/b", "a b", "dataset://a", "ä", "-a", "a\n"])
def test_names_that_break_an_address_are_rejected(name):
    with pytest.raises(InputError, match="--valohai_model: expected letters, digits"):
        execution.check_name("valohai_model", name)
    with pytest.raises(InputError, match="--valohai_tags: expected"):
        execution.split_tags("valohai_tags", f"fine,{name}x/")
    execution.check_name("valohai_model", "")
    assert execution.split_tags("valohai_tags", " a, b-1 ,,") == ["a", "b-1"]


def test_a_status_is_sent(outputs, tmp_path):
    received = []

    class Api(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    assert not execution.is_on_valohai()
    execution.set_status("to nobody")  # Does nothing.
    with http.server.HTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        config = {"set_status_detail": {"url": url, "method": "POST"}}
        (tmp_path / "api.json").write_text(json.dumps(config))
        execution.set_status("epoch 1/2: AP 0.5")
        server.shutdown()
    assert [json.loads(body) for body in received] == [
        {"status_detail": "epoch 1/2: AP 0.5"}
    ]
    assert execution.is_on_valohai()


def test_a_status_that_cannot_be_sent_delays_nothing(outputs, tmp_path, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(execution, "STATUS_SECONDS", 0.1)
    monkeypatch.setattr(valohai, "set_status_detail", lambda text: released.wait(30))
    execution.set_status("epoch 1/2")
    released.set()


def test_live_uploads_only_on_a_worker(outputs, tmp_path):
    path = outputs / "model" / "model.json"
    execution.upload_now([path])
    assert path.stat().st_mode & 0o222
    (tmp_path / "api.json").write_text("{}")
    execution.upload_now([path])
    assert not path.stat().st_mode & 0o222
