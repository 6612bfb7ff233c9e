"""Several workers: who they are; one that is killed; how the others end and go on."""

import json
import re
import signal
import time

import pytest
import valohai
from conftest import free_addresses, start_training

import cluster
from yolov3_tf2 import training_state
from yolov3_tf2.errors import InputError

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
    # A chief is the first of the workers; one alone is no cluster to wait for.
    chief = {"cluster": {"worker": ["b:2"], "chief": ["a:1"]}}
    chief["task"] = {"type": "worker", "index": 0}
    monkeypatch.setenv("TF_CONFIG", json.dumps(chief))
    assert cluster.find() == cluster.Cluster(["a:1", "b:2"], 1)
    chief = {"cluster": {"chief": ["a:1"]}, "task": {"type": "chief", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(chief))
    assert cluster.find() == cluster.Cluster(["a:1"], 0)
    with_ps = json.loads(tf_config(["a:1"], 0))
    with_ps["cluster"]["ps"] = ["b:2"]
    for text in (
        "{",
        "{}",
        "[]",
        tf_config(["a:1"], 1),
        tf_config(["a"], 0),
        json.dumps(with_ps),
    ):
        monkeypatch.setenv("TF_CONFIG", text)
        with pytest.raises(InputError, match="TF_CONFIG: expected"):
            cluster.find()


def tf_config(addresses, rank):
    task = {"type": "worker", "index": rank}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


@pytest.fixture(scope="module")
def data(training_inputs):
    """Arguments that train a small network."""
    return [*training_inputs, "--size=64", "--batch_size=4", "--freeze_epochs=0"]


def start_all(folder, *arguments):
    """Starts a worker with each list of arguments; their outputs are `folder`/rank."""
    addresses = free_addresses(len(arguments))
    workers = [
        start_training(folder / str(rank), each, TF_CONFIG=tf_config(addresses, rank))
        for rank, each in enumerate(arguments)
    ]
    return addresses, workers


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong, message",
    [
        (["--size=65"], r"worker 1 \(.*\) has ended before the training began"),
        (["--batch_size=2"], "the workers differ in --batch_size: .* 4 on worker 0"),
        (["--precision=bfloat16"], "differ in --precision: .* got float32 on worker 0"),
    ],
)
def test_a_worker_that_does_not_do_as_the_others(tmp_path, data, wrong, message):
    same = [*data, "--precision=float32"]
    _, workers = start_all(tmp_path, same, [*same, *wrong])
    printed = [worker.communicate(timeout=60)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [1, 1]
    assert re.search(f"^error: .*{message}", printed[0], re.MULTILINE), printed[0]
    assert re.search("^error: ", printed[1], re.MULTILINE)
    assert "Traceback" not in "".join(printed)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_worker_with_the_newest_checkpoint_is_the_master(tmp_path, data):
    (first,) = start_all(tmp_path / "one", [*data, "--epochs=1"])[1]
    assert first.wait() == 0, first.stderr.read()
    left = [p for p in (tmp_path / "one/0/checkpoints").iterdir() if p.is_file()]
    two_epochs = [*data, "--epochs=2"]
    addresses, workers = start_all(
        tmp_path, two_epochs, [*two_epochs, "--checkpoints", *left]
    )
    printed = [worker.communicate(timeout=300) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], printed
    assert "goes on after epoch 1, from" in printed[1][1]
    assert f"worker 0 of {addresses[1]}, {addresses[0]}: the master" in printed[1][1]
    assert (tmp_path / "1" / "model" / "model.json").is_file()
    assert printed[0][0].strip() == "" and not (tmp_path / "0").exists()


@pytest.mark.slow
def test_a_killed_worker_ends_the_others_and_they_go_on(tmp_path, data):
    arguments = [*data, f"--epochs={EPOCHS}"]
    addresses, (master, other) = start_all(tmp_path, arguments, arguments)
    checkpoints = tmp_path / "0" / "checkpoints"
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
    assert not (tmp_path / "1").exists()

    left = [path for path in checkpoints.iterdir() if path.is_file()]
    reached = int(training_state.find(left).stem[-4:])
    again = [
        start_training(
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
