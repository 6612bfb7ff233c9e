"""The image, the locks, the requirements, valohai.yaml and CI agree."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import valohai_yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from project import REPOSITORY

LOCKS = {
    "requirements.txt": "requirements/cpu.lock",
    "requirements/gpu.txt": "requirements/gpu.lock",
}
each_lock = pytest.mark.parametrize(("source", "lock"), LOCKS.items())


def read(name):
    return (REPOSITORY / name).read_text(encoding="utf-8")


def required(name):
    """The requirements of a file and of those that it includes."""
    for line in read(name).splitlines():
        line = re.sub(r"(^| +)#.*", "", line)
        if line.startswith("-r "):
            included = Path(name).parent / line.removeprefix("-r ")
            yield from required(os.path.normpath(included))
        elif line:
            yield Requirement(line)


def entries(lock):
    """The lines of a lock, whole, without comments."""
    text = read(lock).replace("\\\n", "")
    return [line for line in text.splitlines() if not re.match(r" *#", line)]


def pins(lock):
    """The version of each package."""
    return dict(entry.split()[0].split("==") for entry in entries(lock))


def command(lock):
    """The command that makes a lock, out of its header."""
    return re.search(r"^# +(uv pip compile .*)", read(lock), re.MULTILINE)[1].split()


def image(pattern):
    """What the groups of `pattern` match in one line of the Dockerfile."""
    (found,) = re.findall(f"^{pattern}$", read("Dockerfile"), re.MULTILINE)
    return found


def steps():
    return valohai_yaml.parse(read("valohai.yaml")).steps


def installed_by(step):
    """The file of the step's `pip install [options] -r FILE`."""
    words = shlex.split(step.command[0])
    assert words[:2] == ["pip", "install"]
    return words[words.index("-r") + 1]


def test_hadolint_finds_nothing():
    process = subprocess.run(
        [
            Path(sys.executable).with_name("hadolint"),
            "--disable-ignore-pragma",
            "--failure-threshold=style",
            "Dockerfile",
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr


def test_all_have_the_same_python():
    python = image(r"FROM python:(3\.\d+)-slim")
    for step in steps().values():
        assert step.image == f"python:{python}-slim", step.name
    ruff = tomllib.loads(read("pyproject.toml"))["tool"]["ruff"]
    assert ruff["target-version"] == "py" + python.replace(".", "")
    assert f"Python {python} to " in read("requirements.txt").splitlines()[0]
    for lock in LOCKS.values():
        words = command(lock)
        assert words[words.index("--python-version") + 1] == python, lock


@each_lock
def test_the_header_of_a_lock_makes_it_in_any_clone(source, lock):
    words = command(lock)
    assert words[-3:] == [source, "-o", lock]
    assert "--generate-hashes" in words
    paths = [word for word in words if "/" in word]
    assert all(path.startswith("requirements/") for path in paths)
    assert not [word for word in words if "index" in word]


@each_lock
def test_every_line_of_a_lock_is_a_version_with_hashes(source, lock):
    for entry in entries(lock):
        assert re.fullmatch(
            r"[a-z0-9.-]+==[\w.]+( +--hash=sha256:[0-9a-f]{64})+", entry
        )


@each_lock
def test_a_lock_has_what_is_required(source, lock):
    locked = pins(lock)
    for requirement in required(source):
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


def test_the_gpu_lock_adds_cuda_alone():
    processor, gpu = (pins(lock) for lock in LOCKS.values())
    assert processor.items() <= gpu.items()
    added = gpu.keys() - processor.keys()
    assert "nvidia-cudnn-cu12" in added
    assert all(name.startswith("nvidia-") for name in added), added


def test_the_image_and_ci_install_the_lock():
    lock = image(r"ARG REQUIREMENTS=(\S+)")
    assert lock == "requirements/cpu.lock"
    assert image(r"COPY \$\{REQUIREMENTS\} \./requirements/")
    assert image(r'RUN pip install --require-hashes -r "\$\{REQUIREMENTS\}"')
    script = read(".ci/run").splitlines()
    install = "pip install --quiet {}".format
    assert script.index(install(f"--require-hashes -r {lock}")) < script.index(
        install("-r requirements/dev.txt")
    )


def test_the_images_install_what_the_steps_do():
    files = {name: installed_by(step) for name, step in steps().items()}
    for name, file in files.items():
        assert (REPOSITORY / file).is_file(), name
    for name in ("convert-superbai", "weights", "detect"):
        lock = LOCKS.get(files[name], files[name])
        assert lock == image(r"ARG REQUIREMENTS=(\S+)"), name
    lock = LOCKS.get(files["train"], files["train"])
    assert lock == image(r"# +--build-arg REQUIREMENTS=(\S+) \.")


@pytest.mark.skipif(
    not os.environ.get("CI"),
    reason="only CI installs the lock; requirements/dev.txt alone may bring newer ones",
)
def test_what_is_locked_is_what_is_tested():
    locked = pins("requirements/cpu.lock")
    assert {name: metadata.version(name) for name in locked} == locked
    cuda = [
        requirement
        for requirement in map(Requirement, metadata.requires("tensorflow"))
        if 'extra == "and-cuda"' in str(requirement.marker)
    ]
    assert cuda
    gpu = pins("requirements/gpu.lock")
    for requirement in cuda:
        assert requirement.specifier.contains(gpu[requirement.name]), requirement


def sent(path):
    """Whether .dockerignore lets a file into the image: its last match decides."""
    decision = True
    for line in read(".dockerignore").splitlines():
        pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?")
        # A match of a folder goes for all that is in it.
        if re.fullmatch(pattern.replace(r"\*", "[^/]*") + "(/.*)?", path):
            decision = line.startswith("!")
    return decision


def test_the_image_gets_what_it_runs_and_nothing_else():
    packages = ("superbai", "valohai_step", "yolov3_tf2")
    files = (p for name in packages for p in (REPOSITORY / name).rglob("*.*"))
    needed = [p for p in files if "__pycache__" not in p.parts]
    needed += [*REPOSITORY.glob("*.py"), *map(REPOSITORY.joinpath, LOCKS.values())]
    needed += [REPOSITORY / "valohai.yaml", REPOSITORY / "LICENSE"]
    for path in needed:
        assert sent(path.relative_to(REPOSITORY).as_posix()), path
    for path in (
        ".env",
        ".git/config",
        ".valohai/outputs/1/detect/detections.json",
        "benchmarks/growth.py",
        "data/train/train-00000-of-00001.tfrecord",
        "images.zip",
        "tests/conftest.py",
        "venv/bin/python",
        "yolov3_tf2/boxes/__pycache__/geometry.cpython-311.pyc",
    ):
        assert not sent(path), path
