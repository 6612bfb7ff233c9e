"""Several workers: finding them, checking that they agree, and errors of one."""

import json
import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf
import valohai
from project import free_addresses, start_training

from valohai_step import cluster
from yolov3_tf2.errors import InputError
from yolov3_tf2.network import checkpoint
from yolov3_tf2.training import devices
from yolov3_tf2.training import state as training_state

EPOCHS = 40


def distributed_json(folder, rank, ips, required=None, task="task-1"):
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
        "group_name": task,
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
    # More than ten, so that sorting their numbers as text would be wrong.
    ips = [f"10.0.0.{number}" for number in range(12)]
    on_valohai(11, ips)
    workers = cluster.find_cluster()
    assert workers.rank == 11 and not workers.is_master
    hosts, ports = zip(*(a.split(":") for a in workers.addresses), strict=True)
    assert list(hosts) == ips
    first = int(ports[0])
    assert list(map(int, ports)) == list(range(first, first + 12))
    on_valohai(0, ips)
    assert cluster.find_cluster().is_master
    # The same ones on each worker.
    assert cluster.find_cluster().addresses == workers.addresses
    on_valohai(0, ["fd00::1", "10.0.0.2"])
    assert re.fullmatch(r"\[fd00::1\]:2\d{4}", cluster.find_cluster().addresses[0])


def test_two_tasks_on_one_machine_use_other_ports(on_valohai):
    first_ports = set()
    for number in range(20):
        on_valohai(1, ["10.0.0.1"] * 4, task=f"task-{number}")
        ports = [int(a.split(":")[1]) for a in cluster.find_cluster().addresses]
        assert ports == list(range(ports[0], ports[0] + 4))
        assert set(ports) < set(cluster.PORTS)
        first_ports.add(ports[0])
    assert len(first_ports) > 15


def test_an_incomplete_distributed_task(on_valohai):
    on_valohai(0, ["10.0.0.1"], required=2)
    with pytest.raises(InputError, match="expected 2 workers, got 1"):
        cluster.find_cluster()


def test_tf_config(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert cluster.find_cluster() == cluster.Cluster([], 0)
    monkeypatch.setenv("TF_CONFIG", tf_config(["a:1", "b:2"], 1))
    assert cluster.find_cluster() == cluster.Cluster(["a:1", "b:2"], 1)
    # A chief is the first worker.
    chief = {"cluster": {"worker": ["b:2"], "chief": ["a:1"]}}
    chief["task"] = {"type": "worker", "index": 0}
    monkeypatch.setenv("TF_CONFIG", json.dumps(chief))
    assert cluster.find_cluster() == cluster.Cluster(["a:1", "b:2"], 1)
    chief = {"cluster": {"chief": ["a:1"]}, "task": {"type": "chief", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(chief))
    assert cluster.find_cluster() == cluster.Cluster(["a:1"], 0)
    with_ps = json.loads(tf_config(["a:1"], 0))
    with_ps["cluster"]["ps"] = ["b:2"]
    for text in (
        "{",
        "{}",
        "[]",
        tf_config(["a:1"], 1),
        tf_config(["a"], 0),
        tf_config(["a:99999"], 0),
        tf_config(["a:1", "b:0"], 0),
        json.dumps(with_ps),
    ):
        monkeypatch.setenv("TF_CONFIG", text)
        with pytest.raises(InputError, match="TF_CONFIG: expected"):
            cluster.find_cluster()


def tf_config(addresses, rank):
    task = {"type": "worker", "index": rank}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


def test_another_master_changes_only_the_order():
    addresses = ["a:1", "b:2", "c:3"]
    reordered = [cluster.Cluster(addresses, rank).with_master(2) for rank in range(3)]
    assert [each.addresses for each in reordered] == [["c:3", "a:1", "b:2"]] * 3
    assert [each.rank for each in reordered] == [1, 2, 0]
    assert [each.address for each in reordered] == addresses


class FakeRendezvous:
    """A `Rendezvous` whose other workers give fixed values."""

    def __init__(self, *answers):
        self.answers = answers

    def exchange(self, value):
        # Through JSON, as over a connection.
        return json.loads(json.dumps([value, *self.answers]))


TWO = cluster.Cluster(["a:1", "b:2"], 0)


@pytest.fixture
def settings(tmp_path):
    """The result of `read_settings` of train.py."""
    names = [tmp_path / f"train-0000{number}-of-00003.tfrecord" for number in range(3)]
    for path in [*names, tmp_path / "test.tfrecord"]:
        path.write_bytes(b"records")
    (tmp_path / "model").mkdir()
    for name in checkpoint.FILES:
        (tmp_path / "model" / name).write_bytes(b"numbers")
    describe_model(tmp_path, "yolov3-tiny", ["disc", "block"])
    return SimpleNamespace(
        values={"batch_size": 4, "precision": "auto"},
        class_names=["disc", "block"],
        train_paths=names,
        validation_paths=[],
        test_paths=[tmp_path / "test.tfrecord"],
        model_folder=tmp_path / "model",
    )


def describe_model(folder, variant, class_names):
    info = {"variant": variant, "classes": class_names, "size": 64}
    (folder / "model" / "model.json").write_text(json.dumps(info))


def change_gpus(settings, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind] * 3)


def change_precision(settings, monkeypatch):
    monkeypatch.setattr(devices, "choose_precision", lambda name: "float16")


def change_parameter(settings, monkeypatch):
    settings.values = settings.values | {"batch_size": 2}


def change_classes(settings, monkeypatch):
    settings.class_names = [*settings.class_names, "ring"]


def change_variant(settings, monkeypatch):
    describe_model(settings.model_folder.parent, "yolov3", ["disc", "block"])


def change_model_classes(settings, monkeypatch):
    describe_model(settings.model_folder.parent, "yolov3-tiny", ["disc", "ring"])


def change_weights(settings, monkeypatch):
    (settings.model_folder / "model.tf.index").write_bytes(b"others")


def change_file(settings, monkeypatch):
    settings.train_paths[1].write_bytes(b"more records")


def leave_out_file(settings, monkeypatch):
    settings.train_paths = settings.train_paths[:2]


def change_test_file(settings, monkeypatch):
    settings.test_paths = [Path(settings.train_paths[0])]


@pytest.mark.parametrize(
    "change, words",
    [
        (change_gpus, r"number of GPUs: .* got 0 on worker 0 \(a:1\) and 3 on"),
        (change_precision, "precision: .* got bfloat16 on .* and float16 on"),
        (change_parameter, "--batch_size: .* got 4 on .* and 2 on"),
        (change_classes, "classes, number 3: .* got nothing on .* and ring on"),
        (change_variant, "network of the input 'model': .* yolov3-tiny .* yolov3 on"),
        (
            change_model_classes,
            "classes of the input 'model', number 2: .* block on",
        ),
        (change_weights, r"digest of the input 'model': .* got \w{16} on "),
        (
            change_file,
            "files of the input 'train', number 2: .* got "
            "train-00001-of-00003.tfrecord of 7 bytes on .* and "
            "train-00001-of-00003.tfrecord of 12 bytes on",
        ),
        (leave_out_file, "files of the input 'train', number 3: .* and nothing on"),
        (change_test_file, "files of the input 'test', number 1: .* test.tfrecord of"),
    ],
)
def test_workers_that_differ(settings, monkeypatch, change, words):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(devices, "choose_precision", lambda name: "bfloat16")
    ours = cluster.describe_run(settings)
    assert cluster.agree_on_master(TWO, FakeRendezvous([ours, -1]), ours, -1) == TWO
    change(settings, monkeypatch)
    with pytest.raises(InputError, match=f"^the workers differ in {words}"):
        cluster.agree_on_master(
            TWO, FakeRendezvous([cluster.describe_run(settings), -1]), ours, -1
        )


def test_a_value_that_only_one_worker_has_is_a_difference():
    for ours, theirs in (({"a": 1, "b": 2}, {"a": 1}), ({"a": 1}, {"a": 1, "b": 2})):
        with pytest.raises(InputError, match="differ in b: .*nothing on worker"):
            cluster.agree_on_master(TWO, FakeRendezvous([theirs, -1]), ours, -1)


def test_an_error_shows_how_long_lists_differ():
    ours = {"files": [f"shard {number}" for number in range(1000)]}
    theirs = {"files": [*ours["files"][:900], "shard", *ours["files"][901:]]}
    words = "files, number 901: .* got shard 900 on .* and shard on"
    with pytest.raises(InputError, match=words):
        cluster.agree_on_master(TWO, FakeRendezvous([theirs, -1]), ours, -1)


# What TensorFlow 2.21 raises when another worker has ended.
ENDED = """Graph execution error:

Detected at node CollectiveReduceV2 defined at (most recent call last):
  File "/train.py", line 569, in <module>

  File "/train-superbai/yolov3_tf2/training/trainer.py", line 281, in _train_step

Detected at node CollectiveReduceV2_1 defined at (most recent call last):
<stack traces unavailable>
{}
The error could be from a previous operation. Restart your program to reset.
\t [[{{{{node CollectiveReduceV2}}}}]] [Op:__inference__train_step_21617]"""


@pytest.mark.parametrize(
    "message, cause",
    [
        (
            "Collective ops is aborted by: The following tasks are unhealthy:\n"
            "/job:worker/replica:0/task:1",
            "The following tasks are unhealthy: /job:worker/replica:0/task:1",
        ),
        (
            "Collective ops is aborted by: Connection reset by peer\n"
            "Additional GRPC error information from remote target /job:worker:\n:{}",
            "Connection reset by peer",
        ),
        ("Socket closed", "Socket closed"),
    ],
)
def test_the_error_of_an_ended_worker_names_the_cause(message, cause):
    error = tf.errors.UnavailableError(None, None, ENDED.format(message))
    with (
        pytest.raises(InputError, match=re.escape(f"no longer answers ({cause}); see")),
        cluster.translate_worker_errors(TWO),
    ):
        raise error
    with (
        pytest.raises(tf.errors.UnavailableError),
        cluster.translate_worker_errors(cluster.find_cluster()),
    ):
        raise error


@pytest.fixture(scope="module")
def data(training_inputs):
    """Arguments that train a small network."""
    return [*training_inputs, "--size=64", "--batch_size=4", "--freeze_epochs=0"]


def start_all(folder, *arguments):
    """Starts a worker for each list of arguments, with outputs in `folder`/rank."""
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
        (["--size=65"], r"worker 1 \(.*\) ended before training started"),
        (["--batch_size=2"], "the workers differ in --batch_size: .* 4 on worker 0"),
    ],
)
def test_a_worker_with_other_arguments(tmp_path, data, wrong, message):
    _, workers = start_all(tmp_path, data, [*data, *wrong])
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
    assert "resuming after epoch 1 from" in printed[1][1]
    whole = f"{addresses[1]}, {addresses[0]}"
    assert f"worker {addresses[1]} of {whole}: the master" in printed[1][1]
    assert (tmp_path / "1" / "model" / "model.json").is_file()
    assert printed[0][0].strip() == "" and not (tmp_path / "0").exists()


@pytest.mark.slow
def test_a_worker_that_fails_ends_the_others(tmp_path, data):
    # An image in the share of the second worker that cannot be decoded.
    last = max(p for p in map(Path, data) if re.match("train-.*tfrecord", p.name))
    path = tmp_path / last.name
    rows = [row.numpy() for row in tf.data.TFRecordDataset(str(last))]
    example = tf.train.Example.FromString(rows[-1])
    (encoded,) = example.features.feature["image/encoded"].bytes_list.value
    broken = encoded[:20] + bytes(len(encoded) - 20)
    example.features.feature["image/encoded"].bytes_list.value[0] = broken
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in [*rows[:-1], example.SerializeToString()]:
            writer.write(row)
    damaged = [path if argument == last else argument for argument in data]
    addresses, workers = start_all(tmp_path, damaged, damaged)
    printed = [worker.communicate(timeout=300)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [1, 1]
    assert "error: 1 images cannot be decoded: " in printed[1]
    (error,) = [line for line in printed[0].splitlines() if "error: " in line]
    assert f"error: worker {addresses[0]}: another of the 2 workers" in error
    assert "no longer answers" in error and "see its own log" in error
    for noise in ("Graph execution", "Detected at", ".py", "()", "Restart your"):
        assert noise not in error
    assert "Traceback" not in "".join(printed)


@pytest.mark.slow
def test_a_killed_worker_ends_the_others_and_they_can_resume(tmp_path, data):
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
    reached = int(training_state.find_state(left).stem[-4:])
    again = [
        start_training(
            tmp_path / f"again-{rank}",
            # On Valohai a worker has the outputs of its own last execution only.
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
    assert f"resuming after epoch {reached} from" in stderr
    assert "2 workers with 1 CPU each" in stderr and "8 images per step" in stderr
    rows = [json.loads(line) for line in stdout.splitlines() if line.startswith("{")]
    assert [row["epoch"] for row in rows[:-1]] == [reached + 1, reached + 2]
    assert "best_AP" in rows[-1]
    assert other_stdout.strip() == "" and "epoch" not in other_stderr
    assert (tmp_path / "again-0" / "model" / "model.json").is_file()
    assert not (tmp_path / "again-1").exists()
