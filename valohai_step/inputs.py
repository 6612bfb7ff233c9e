"""The files of a step's inputs, on Valohai and on your own machine.

They come from the command line, from Valohai's config files, or, on your own machine,
from the latest local outputs (see `local_outputs.py`).
"""

import atexit
import lzma
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

import valohai
from absl import logging

from valohai_step import downloads, local_outputs
from valohai_step.local_outputs import STATE
from valohai_step.parameters import read_option
from yolov3_tf2.errors import InputError, shorten
from yolov3_tf2.names import normalise_name

DOWNLOADS = STATE / "downloads"
# Of damaged archives, and of those with a password (a RuntimeError).
_ARCHIVE_ERRORS = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
)
# Of those that the standard library unpacks.
_ARCHIVE_ENDINGS = (
    *(".zip", ".tar", ".tar.gz", ".tgz"),
    *(".tar.bz2", ".tbz2", ".tar.xz", ".txz"),
)
LOGGED_FILES = 3  # How many files of an input the log names.


def input_paths(name, optional=False, folders=False):
    """Returns the files of an input as a list of `pathlib.Path`.

    On your own machine, a required input that is not given is taken from the newest
    local outputs of the step that feeds it in `valohai.yaml`. The log says which files
    were taken.

    Args:
        name: of the input.
        optional: whether it may have no files.
        folders: whether to return folders and archives as they are. Otherwise
            archives are extracted, and a folder is an error.

    Raises:
        InputError: a file does not exist or cannot be downloaded, or a required input
            has no files.
    """
    step_name = valohai.internals.global_state.step_name
    # Not read by valohai-utils: it ignores folders, and takes `[1]` for a pattern.
    values = read_option(name)
    paths = [
        path
        for value in values
        if not is_address(value)
        for path in _resolve_pattern(value, step_name, name)
    ]
    paths += download_files(filter(is_address, values), f"--{name} FILE")
    if not folders and any(path.is_dir() for path in paths):
        raise InputError(
            f"input '{name}' of {step_name}: expected files, got a folder; give the "
            f"files in it, as in --{name} FOLDER/*."
        )
    if not paths:
        paths = _configured_paths(name)
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise _missing_files(missing, step_name, name)
    if paths:
        logging.info("%s: %s", name, _describe_paths(paths))
    elif not os.environ.get("VH_JOB_ID"):
        paths = local_outputs.find_newest_outputs(step_name, name, optional)
    if not folders:
        paths = [file for path in paths for file in _extract_archive(path)]
    if not paths and not optional:
        raise InputError(local_outputs.describe_missing_input(step_name, name))
    return paths


def is_address(value):
    """Whether the value of an input is an address, such as `https://…`, not a path."""
    return "://" in value


def download_files(urls, option):
    """Downloads the files of an input; returns their paths.

    Several files of different names are put into one folder, as Valohai does: a model
    or a checkpoint needs its files side by side.

    Args:
        urls: their addresses.
        option: see `downloads.download`.

    Raises:
        InputError: one cannot be downloaded.
    """
    paths = [downloads.download(url, DOWNLOADS, option) for url in urls]
    if len(paths) < 2 or len({path.name for path in paths}) < len(paths):
        return paths
    folder = Path(tempfile.mkdtemp(prefix="input-", dir=DOWNLOADS))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for path in paths:
        link_or_copy(path, folder / path.name)
    return [folder / path.name for path in paths]


def link_or_copy(path, target):
    """Makes a file appear at `target` too, without using space where that is possible.

    Raises:
        OSError: it cannot be written there.
    """
    try:
        os.link(path.resolve(), target)
    except OSError:
        # The file is on another disk, or the disk has no hard links.
        try:
            shutil.copyfile(path, target)
        except OSError as error:
            target.unlink(missing_ok=True)
            raise OSError(
                f"{path} cannot be copied to {target}: {error.strerror or error}."
            ) from error


def _configured_paths(name):
    """Returns the files of an input of Valohai's config files, or else its default."""
    info = valohai.internals.global_state.inputs.get(name)
    # Files that Valohai fetches only when they are asked for have an `input_id`.
    for file in info.files if info and not info.input_id else ():
        if not file.is_downloaded() and (file.uri or "").startswith("http"):
            (path,) = download_files([file.uri], f"--{name} FILE")
            file.path = str(path)
    # Archives stay closed: some steps read them without extracting.
    found = valohai.inputs(name).paths(process_archives=False)
    return [Path(path) for path in found]


def _resolve_pattern(value, step_name, name):
    """Returns the files and folders that a value of the command line stands for."""
    paths = glob_paths(value)
    if not paths:
        raise _missing_files([value], step_name, name)
    return paths


def _missing_files(missing, step_name, name):
    return InputError(
        f"input '{name}' of {step_name}: expected a file, got "
        f"{', '.join(map(str, missing))}, which does not exist; is the path right?"
    )


def glob_paths(pattern):
    """Returns the path that a text is, or the paths that match it as a pattern."""
    path = Path(pattern).expanduser()
    if path.exists():
        return [path]
    anchor = Path(path.anchor)
    relative = str(path.relative_to(anchor))
    return sorted(anchor.glob(relative)) if relative != "." else []


def _describe_paths(paths):
    """Returns the names of the first files and the size of all, as one line."""
    names = ", ".join(path.name for path in paths[:LOGGED_FILES])
    if len(paths) > LOGGED_FILES:
        names += f" and {len(paths) - LOGGED_FILES} more"
    files = [file for path in paths for file in (path, *path.rglob("*"))]
    size = sum(file.stat().st_size for file in files if file.is_file())
    return f"{names}, {downloads.format_size(size)}"


def _extract_archive(path):
    """Returns the files of an archive, or any other file in a list.

    The extracted files are deleted when this process ends.

    Raises:
        InputError: the archive is damaged.
    """
    if not path.name.endswith(_ARCHIVE_ENDINGS):
        return [path]
    folder = tempfile.mkdtemp(prefix="input-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # Refuses members of a tar that lie outside of it; zips are always extracted so.
    options = {} if path.suffix == ".zip" else {"filter": "data"}
    try:
        shutil.unpack_archive(path, folder, **options)
    except (shutil.ReadError, *_ARCHIVE_ERRORS) as error:
        raise InputError(
            f"{path}: cannot be unpacked ({shorten(error)}); is the download complete?"
        ) from error
    except OSError as error:
        if error.errno is None:  # Of a damaged bzip2, and not of the system.
            raise InputError(
                f"{path}: cannot be unpacked ({error}); is the download complete?"
            ) from error
        raise OSError(
            f"{path}: cannot be unpacked into {folder}: {error.strerror or error}; set "
            "TMPDIR to a folder with more space."
        ) from error
    return [
        file
        for file in sorted(Path(folder).rglob("*"))
        if file.is_file() and not file.name.startswith(".")
    ]


def restart_paths():
    """Returns the outputs of the interrupted execution that this one continues.

    Valohai passes them in an input `_restart` when it restarts an execution.
    """
    return [Path(p) for p in valohai.inputs("_restart").paths(process_archives=False)]


def input_folder(name, marker):
    """Returns the folder of an input's files.

    Raises:
        InputError: no file of it is named `marker`.
    """
    for path in input_paths(name):
        if path.name == marker:
            return path.parent
    raise InputError(
        f"input '{name}': expected a file {marker} among the files, got none; give all "
        "files of the folder that the earlier step wrote."
    )


def read_class_names(path):
    """Returns the class names of a file, one a line; empty lines are ignored.

    Raises:
        InputError: the file has no names, has one twice, or is not UTF-8.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: expected a text file of class names in UTF-8, got another "
            f"encoding ({error}); save it as UTF-8."
        ) from error
    names = [normalise_name(line) for line in lines if line.strip()]
    if not names:
        raise InputError(f"{path}: expected one class name per line, got none.")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(
            f"{path}: expected each class name once, got {', '.join(repeated)} more "
            "than once."
        )
    return names
