"""Several workers: who they are; one that is killed; how the others end and go on."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import valohai
from conftest import REPOSITORY, free_addresses

import cluster
import samples
from yolov3_tf2 import checkpoint, grid, training_state
from yolov3_tf2.errors import InputError
from yolov3_tf2.model import build_model

EPOCHS = 40


def distributed_json(folder, rank, ips, required=None):
    """Writes the file that Valohai gives each worker of a distributed task."""
    members = [
        {
            "announce_time": "2026-01-01T00:00:00Z",
            "identity": f"worker-{number}",
            "job_id": f"job-{number}",
            "member_id": str(number),
            "network": {"exposed_ports": {}, "local_ips": [ip], "public_ips": []},
        }
        for number, ip in enumerate(ips)
    ]
    config = {
        "group_name": "task-1",
        "member_id": str(rank),
        "required_count": required or len(ips),
    }
    value = {"config": config, "members": members[::-1], "self": members[rank]}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "distributed.json").write_text(json.dumps(value))
    return folder


@pytest.fixture
def on_valohai(monkeypatch, tmp_path):
    def prepare(*arguments, **options):
        folder = distributed_json(tmp_path / "config", *arguments, **options)
        monkeypatch.setenv("VH_CONFIG_DIR", str(folder))
        valohai.distributed.flush_state()

    yield prepare
    valohai.distributed.flush_state()


def test_the_members_of_a_distributed_task(on_valohai):
    # More than ten: their numbers are no text to sort.
    ips = [f"10.0.0.{number}" for number in range(12)]
    on_valohai(11, ips)
    found = cluster.find()
    assert found.rank == 11 and not found.is_master
    assert found.addresses[0] == f"10.0.0.0:{cluster.FIRST_PORT}"
    assert found.addresses[11] == f"10.0.0.11:{cluster.FIRST_PORT + 11}"
    on_valohai(0, ips)
    assert cluster.find().is_master


def test_a_distributed_task_that_is_not_complete(on_valohai):
    on_valohai(0, ["10.0.0.1"], required=2)
    with pytest.raises(InputError, match="expected 2 workers, got 1"):
        cluster.find()


def test_tf_config(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert cluster.find() == cluster.Cluster([], 0)
    monkeypatch.setenv("TF_CONFIG", tf_config(["a:1", "b:2"], 1))
    assert cluster.find() == cluster.Cluster(["a:1", "b:2"], 1)
    for text in ("{", "{}", tf_config(["a:1"], 1), '{"cluster": {"ps": []}}', "[]"):
        monkeypatch.setenv("TF_CONFIG", text)
        with pytest.raises(InputError, match="TF_CONFIG: expected"):
            cluster.find()


def tf_config(addresses, rank):
    task = {"type": "worker", "index": rank}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


@pytest.fixture(scope="module")
def data(tmp_path_factory, run_script):
    """Arguments that train a small network on the sample's drawn pictures."""
    folder = tmp_path_factory.mktemp("data")
    samples.write_export(folder, num_train=24, num_test=7)
    process = run_script(
        "convert_superbai.py",
        *("--images", folder / "images.zip", "--labels", folder / "labels.zip"),
        "--images_per_shard=10",
        outputs=folder,
    )
    assert process.returncode == 0, process.stderr
    model = build_model(grid.VARIANTS["yolov3-tiny"], 2)
    checkpoint.save_model(folder / "model", model, ["circle", "disc"], 64)
    return [
        *("--classes", folder / "classes.txt"),
        *("--train", *(folder / "train").iterdir()),
        *("--test", *(folder / "test").iterdir()),
        *("--model", *(folder / "model" / name for name in checkpoint.FILES)),
        *("--size=64", "--batch_size=4", "--freeze_epochs=0"),
    ]


def start(outputs, arguments, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("VH_")}
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / "train.py"), *map(str, arguments)],
        cwd=REPOSITORY,
        env={**clean, "VH_OUTPUTS_DIR": str(outputs), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_killed_worker_ends_the_others_and_they_go_on(tmp_path, data):
    addresses = free_addresses(2)
    outputs = [tmp_path / "master", tmp_path / "other"]
    master, other = (
        start(
            outputs[rank],
            [*data, f"--epochs={EPOCHS}"],
            TF_CONFIG=tf_config(addresses, rank),
        )
        for rank in range(2)
    )
    checkpoints = outputs[0] / "checkpoints"
    while not list(checkpoints.glob("epoch-0001.json")):
        assert master.poll() is None, master.stderr.read()
        time.sleep(0.05)
    other.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    _, stderr = master.communicate(timeout=120)
    assert time.monotonic() - killed < 60
    assert master.returncode == 1, stderr
    assert "no longer answers" in stderr and "Traceback" not in stderr
    assert addresses[1] in stderr and "checkpoints/" in stderr
    other.communicate()
    # Only the master writes.
    assert not outputs[1].exists()

    left = [path for path in checkpoints.iterdir() if path.is_file()]
    reached = int(training_state.find(left).stem[-4:])
    again = [
        start(
            tmp_path / f"again-{rank}",
            # As on Valohai, where a worker has the outputs of its own last execution.
            [
                *data,
                f"--epochs={reached + 2}",
                *(["--checkpoints", *left] * (not rank)),
            ],
            VH_CONFIG_DIR=str(
                distributed_json(tmp_path / f"config-{rank}", rank, ["127.0.0.1"] * 2)
            ),
        )
        for rank in range(2)
    ]
    printed = [process.communicate(timeout=300) for process in again]
    for process, (_, stderr) in zip(again, printed, strict=True):
        assert process.returncode == 0, stderr
    (stdout, stderr), (other_stdout, other_stderr) = printed
    assert f"goes on after epoch {reached}, from" in stderr
    assert "2 workers with 1 CPU each" in stderr and "8 a step" in stderr
    rows = [json.loads(line) for line in stdout.splitlines() if line.startswith("{")]
    assert [row["epoch"] for row in rows[:-1]] == [reached + 1, reached + 2]
    assert "best_AP" in rows[-1]
    assert other_stdout.strip() == "" and "epoch" not in other_stderr
    assert (tmp_path / "again-0" / "model" / "model.json").is_file()
    assert not (tmp_path / "again-1").exists()
