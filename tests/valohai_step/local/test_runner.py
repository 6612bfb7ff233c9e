"""Local runs: options, inputs, edges, conditions; whole runs are in test_pipeline."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
import valohai_yaml

from valohai_step import local_outputs
from valohai_step.local import nodes as local_nodes
from valohai_step.local import runner, worker
from yolov3_tf2.errors import InputError

YAML = """
- step:
    name: make
    image: none
    command:
      - pip install nothing
      - python make.py {parameters}
    parameters:
      - {name: number, type: integer, default: 3, min: 0, max: 10}
      - {name: rate, type: float, default: 0.5, min: 0, max: 1}
      - {name: loud, type: flag, default: false, pass-true-as: --loud=true,
         pass-false-as: --loud=false}
    inputs:
      - {name: file, optional: false, default: []}
      - {name: extra, optional: true}
- step:
    name: use
    image: none
    command: python use.py {parameters}
    environment-variables:
      - {name: COLOUR, default: blue}
    inputs:
      - {name: things, optional: false, default: []}
      - {name: list, optional: false, default: []}
- pipeline:
    name: two
    nodes:
      - name: make
        step: make
        type: execution
        actions:
          - {when: node-complete, if: [metadata.rate > 0.9, parameter.loud],
             then: stop-pipeline}
          - {when: node-complete, if: metadata.never > 0, then: stop-pipeline}
      - {name: use, step: use, type: execution}
    edges:
      - [make.output.things/*, use.input.things]
      - [make.output.list.txt, use.input.list]
    parameters:
      - {name: number, default: 3, targets: [make.parameters.number]}
"""
MAKE = """
import json, os, pathlib, sys
config, out = (pathlib.Path(os.environ[f"VH_{n}_DIR"]) for n in ("CONFIG", "OUTPUTS"))
parameters = json.loads((config / "parameters.json").read_text())
inputs = json.loads((config / "inputs.json").read_text())
(out / "things").mkdir()
(out / "things" / "a.txt").write_text("a")
(out / "things" / ".hidden").write_text("no")
(out / "list.txt").write_text(json.dumps([sys.argv[1:], parameters, inputs]))
print(json.dumps({"made": 1, "rate": parameters["rate"]}))
print("{not json")
print("to stderr", file=sys.stderr)
sys.exit(parameters["number"] - 3)
"""
USE = """
import json, os, pathlib
inputs = pathlib.Path(os.environ["VH_INPUTS_DIR"])
print(json.dumps({"files": sorted(p.name for p in inputs.rglob("*.*"))}))
assert os.environ["VH_JOB_ID"].startswith("exec-")
assert os.environ["COLOUR"] == "blue"
"""


@pytest.fixture(autouse=True)
def handlers():
    """Restores the signal handlers of this process, which a run replaces."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of two steps, in a folder that the runner uses instead of its own."""
    (tmp_path / "valohai.yaml").write_text(YAML)
    (tmp_path / "make.py").write_text(MAKE)
    (tmp_path / "use.py").write_text(USE)
    (tmp_path / "in.txt").write_text("in")
    monkeypatch.setattr(local_outputs, "REPOSITORY", tmp_path)
    monkeypatch.setattr(runner, "REPOSITORY", tmp_path)
    monkeypatch.setattr(runner, "STATE", tmp_path / ".valohai")
    monkeypatch.setattr(worker, "REPOSITORY", tmp_path)
    # These steps do not use the sample.
    monkeypatch.setattr(runner, "_sample_values", lambda *_: {})
    monkeypatch.setattr(runner, "_draw_sample", lambda: None)
    return tmp_path


def run(*arguments):
    return runner.run_command_line("two", arguments)


def test_a_run(project, capsys):
    assert run(f"--make.file={project / 'in.txt'}", "--make.loud=true") == 0
    printed = capsys.readouterr().out
    assert "[1/2] make done" in printed and "[2/2] use done" in printed
    assert "made 1" in printed and "{not json" in printed and "to stderr" in printed
    assert "pip" not in printed
    (outputs,) = (project / ".valohai" / "outputs").iterdir()
    arguments, parameters, inputs = json.loads(
        (outputs / "make" / "list.txt").read_text()
    )
    assert arguments == ["--number=3", "--rate=0.5", "--loud=true"]
    assert parameters == {"number": 3, "rate": 0.5, "loud": True}
    # An optional input without files is absent.
    assert list(inputs) == ["file"]
    (entry,) = inputs["file"]["files"]
    assert entry["name"] == "in.txt" and entry["size"] == 2
    (folder,) = (project / ".valohai" / "runs").iterdir()
    assert json.loads((folder / "use" / "metadata.jsonl").read_text()) == {
        "files": ["a.txt", "list.txt"]
    }
    assert "to stderr" in (folder / "make" / "log.txt").read_text()


def test_a_failing_step_ends_the_run(project, capsys):
    assert run(f"--make.file={project / 'in.txt'}", "--make.number=7") == 1
    printed = capsys.readouterr().out
    assert "[1/2] make failed after" in printed and "exit status 4" in printed
    assert "use" not in printed.partition("failed")[2]


def test_a_condition_ends_the_pipeline(project, capsys):
    given = [f"--make.file={project / 'in.txt'}", "--make.rate=1"]
    assert run(*given, "--make.loud=true") == 1
    printed = capsys.readouterr().out
    assert "[1/2] make done" in printed
    assert (
        "[1/2] make: pipeline stopped, as metadata.rate > 0.9 and parameter.loud; "
        "logs of the steps: .valohai/runs/"
    ) in printed
    assert "[2/2]" not in printed
    # Only one of the two conditions holds.
    assert run(*given) == 0


def test_a_parameter_of_the_pipeline(project, capsys):
    file = f"--make.file={project / 'in.txt'}"
    assert run(file, "--number=7") == 1
    assert "exit status 4" in capsys.readouterr().out
    assert run(file, "--number=11") == 1
    assert "error: --number: expected a value from 0 to 10" in capsys.readouterr().err
    assert run(file, "--number=3", "--make.number=3") == 1
    error = capsys.readouterr().err
    assert "--number sets --make.number: expected only one of them, got both" in error
    assert run(file, "--numbr=3") == 1
    error = capsys.readouterr().err
    assert "unknown option --numbr; did you mean --number?" in error


def test_a_parameter_of_the_pipeline_overrides_the_sample():
    text = (runner.REPOSITORY / "valohai.yaml").read_text()
    config = valohai_yaml.parse(text)
    pipeline = config.pipelines["train-superbai"]
    texts = {("", "epochs"): ["3"], ("train", "size"): ["96"]}
    nodes = local_nodes.build_nodes(
        config, pipeline, runner._sample_values(pipeline, texts) | texts
    )
    values = nodes["train"].parameters
    assert (values["epochs"], values["size"], values["mosaic"]) == (3, "96", 0.0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["make.file=x"], "unexpected value 'make.file=x': expected an option before"),
        (["--make.file", "x", "y"], "--make.file: expected one value, got x y; repeat"),
        (["--make.file"], "missing value for --make.file$"),
        (["--make.file="], "missing value for --make.file$"),
        (["--.file=x"], "expected --NODE.NAME=value"),
        (["--file=x"], "unknown option --file; .*--number.*--NODE.NAME=value"),
        (["--pipeline=tow"], "--pipeline=tow: unknown pipeline; did you mean two?"),
        (["--nope.file=x"], "unknown node 'nope'; expected one of make, use"),
        (["--mak.file=x"], "unknown node 'mak'; did you mean make?"),
        (
            ["--make.nope=x"],
            "unknown option --make.nope; expected one of --make.number, --make.rate, "
            "--make.loud, --make.file, --make.extra",
        ),
        (["--make.numbr=1"], "unknown option --make.numbr; did you mean --make.number"),
        (["--make.number=x"], "--make.number: expected an integer, got 'x'"),
        (["--make.number=11"], "expected a value from 0 to 10, got 11"),
        (["--make.rate=nan"], "expected a value from 0 to 1, got nan"),
        (["--use.list=x"], "this input comes from make .* script alone"),
        (["--make.loud=maybe"], "expected true or false, got 'maybe'"),
        ([], "input 'file' of make is missing; give --make.file=FILE"),
        (["--make.file=nowhere.txt"], "expected a file, got nowhere.txt"),
        (["--make.file=http://127.0.0.1:9/x"], "cannot be downloaded .*--make.file="),
        (["--make.file=datum://12"], "datum://12: .*only Valohai can open; .*--make."),
    ],
)
def test_bad_arguments(project, capsys, arguments, message):
    if any("number=" in a or "loud" in a for a in arguments):
        arguments = [*arguments, f"--make.file={project / 'in.txt'}"]
    assert run(*arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert re.search(message, error, re.MULTILINE)


def test_folders_patterns_and_several_values(project):
    for name in ("one.zip", "two.zip"):
        (project / name).write_text(name)
    node = worker.Node(
        "make",
        valohai_yaml.parse(YAML).steps["make"],
        {},
        {"file": [str(project / "*.zip"), str(project / "in.txt")], "extra": []},
    )
    files = worker.fetch_files(project, node, "file")
    assert [name for _, name in files] == ["one.zip", "two.zip", "in.txt"]
    (project / "folder" / "sub").mkdir(parents=True)
    for name in ("a.txt", "sub/a.txt"):
        (project / "folder" / name).write_text(name)
    node.inputs["file"] = [str(project / "folder")]
    files = worker.fetch_files(project, node, "file")
    assert [name for _, name in files] == ["a.txt", "sub/a.txt"]
    links = [worker._link(*pair, project / "inputs" / "file") for pair in files]
    assert [link["name"] for link in links] == ["a.txt", "sub/a.txt"]
    assert (project / "inputs" / "file" / "sub" / "a.txt").read_text() == "sub/a.txt"


def test_options_of_nodes_and_of_the_pipeline():
    texts = runner.parse_arguments(["--a.b=1", "--a.b", "2", "--a.c=x=y", "--d=3"])
    assert texts == {("a", "b"): ["1", "2"], ("a", "c"): ["x=y"], ("", "d"): ["3"]}


def test_a_former_name_of_a_parameter(project, capsys):
    text = YAML.replace("name: rate,", "name: review_images,")
    config = valohai_yaml.parse(text)
    pipeline = config.pipelines["two"]
    texts = runner.parse_arguments(["--make.file=x", "--make.review_pictures=0.25"])
    node = local_nodes.build_nodes(config, pipeline, texts)["make"]
    assert node.parameters == {"number": 3, "review_images": 0.25, "loud": False}
    # It is a former name only where the step has the present one.
    assert run("--make.review_pictures=1") == 1
    assert "unknown option --make.review_pictures" in capsys.readouterr().err


def test_an_edge_without_files(project):
    (project / "make.py").write_text("")
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            "import pathlib; from valohai_step import local_outputs;"
            "from valohai_step.local import runner, worker;"
            f"root = pathlib.Path({str(project)!r});"
            "local_outputs.REPOSITORY = runner.REPOSITORY = worker.REPOSITORY = root;"
            "runner.STATE = root / '.valohai';"
            "runner._sample_values = lambda *_: {};"
            "runner._draw_sample = lambda: None;"
            f"raise SystemExit(runner.run_command_line('two', "
            f"['--make.file={project / 'in.txt'}']))",
        ],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    assert (
        "input 'things' of use: expected files things/* among the outputs of make"
    ) in process.stderr


def test_two_files_of_one_name(project):
    folder = project / "inputs"
    worker._link(project / "in.txt", "in.txt", folder)
    with pytest.raises(InputError, match="input 'inputs': .* got two named in.txt"):
        worker._link(project / "in.txt", "in.txt", folder)


def test_help_lists_what_can_be_set(capsys):
    assert runner.run_command_line("train-superbai", ["--help"]) == 0
    printed = capsys.readouterr().out
    assert "  --train.epochs  (1 to 10000; default 15)\n      Passes over" in printed
    assert "  --convert-superbai.labels  (required)" in printed


def test_an_interrupted_step_has_ended_when_the_run_returns(project):
    started, ended = project / "started", project / "ended"
    (project / "make.py").write_text(
        "import pathlib, signal, sys, time\n"
        "def stop(*_):\n"
        "    time.sleep(1)\n"
        f"    pathlib.Path({str(ended)!r}).touch()\n"
        "    sys.exit(1)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        f"pathlib.Path({str(started)!r}).touch()\n"
        "time.sleep(60)\n"
    )

    def interrupt():
        while not started.exists():
            time.sleep(0.05)
        # To the main thread, whose read it interrupts.
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    begun = time.monotonic()
    assert run(f"--make.file={project / 'in.txt'}") == 128 + signal.SIGTERM
    assert ended.exists() and time.monotonic() - begun < 30
    thread.join()


def test_help_wins_over_other_options(capsys):
    for arguments in (["--foo", "-h"], ["--help", "--train.epochs=x"]):
        assert runner.run_command_line("train-superbai", arguments) == 0
        assert "--train.epochs" in capsys.readouterr().out


def test_former_names(capsys):
    upload = "--pipeline=label-superbai", "--upload-superbai.project=P"
    former = "--upload-superbai.review_pictures"
    assert runner.run_command_line("", [*upload, f"{former}=x"]) == 1
    assert f"error: {former}: expected an integer" in capsys.readouterr().err
    both = [f"{former}=4", "--upload-superbai.review_images=0"]
    assert runner.run_command_line("", [*upload, *both]) == 1
    assert "are the same option: expected only one" in capsys.readouterr().err
    assert runner.run_command_line("", [*upload, f"{former}=4"]) == 1
    printed = capsys.readouterr()
    assert f"WARNING: {former} is now called --upload-superbai.review_images" in (
        printed.out
    )


def test_a_flag_needs_no_value(capsys):
    option = "--upload-superbai.dry_run"
    arguments = ["--pipeline=label-superbai", option, "--detect.model"]
    assert runner.run_command_line("", arguments) == 1
    assert "error: missing value for --detect.model" in capsys.readouterr().err


def test_sizes_are_checked_before_anything_runs(capsys):
    for value in ("--detect.size=100", "--train.size=320-600", "--train.size=big"):
        assert runner.run_command_line("train-superbai", [value]) == 1
        option = value.partition("=")[0]
        assert f"error: {option}: expected" in capsys.readouterr().err
    assert runner.run_command_line("train-superbai", ["--size=100"]) == 1
    assert "error: --size: expected a multiple of 32" in capsys.readouterr().err
    assert runner.run_command_line("train-superbai", ["--detect.size=100"]) == 1
    assert "expected a multiple of 32, got 100" in capsys.readouterr().err


def test_a_folder_without_files(project, capsys):
    (project / "folder" / "deeper").mkdir(parents=True)
    assert run(f"--make.file={project / 'folder'}") == 1
    assert "got an empty folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "column 2"),
        ("- step: {}", "is a required property"),
        (None, "No such file or directory"),
    ],
)
def test_a_damaged_definition(project, capsys, text, words):
    path = project / "valohai.yaml"
    path.unlink()
    if text:
        path.write_text(text)
    assert run("--make.number=3") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path}: expected the definitions of steps and")
    assert words in line


def test_a_full_disk_is_named_with_the_folder_of_the_run(project, capsys, monkeypatch):
    def fail(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))

    monkeypatch.setattr("os.link", fail)
    monkeypatch.setattr("shutil.copyfile", fail)
    assert run(f"--make.file={project / 'in.txt'}") == 1
    printed = capsys.readouterr().err
    assert f"error: {project / 'in.txt'} cannot be copied to {project}" in printed
    assert "inputs/file/in.txt: No space left on device." in printed


def test_a_log_that_cannot_grow(project, capsys, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(worker, "_stream", fail)
    assert run(f"--make.file={project / 'in.txt'}") == 1
    error = capsys.readouterr().err
    assert "/make: inputs, config or log of this step cannot be written: No sp" in error
