"""Valohai's config files: checked as a whole before valohai-utils reads them.

It reads them at different moments, some after the work is done, and fails with its own
exceptions, or takes a damaged file for a missing one.
"""

import json
from pathlib import Path

import valohai

from yolov3_tf2.errors import InputError

_NAMES = ("parameters", "inputs", "execution", "distributed", "api")


def check_config_files():
    """Checks the config files that exist.

    Raises:
        InputError: one is not readable, no JSON, or not laid out as Valohai does it.
    """
    folder = Path(valohai.paths.get_config_path())
    for name in _NAMES:
        path = folder / f"{name}.json"
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(
                f"{path}: expected a config file of Valohai in JSON, got {error}; is "
                "it damaged, or was it edited?"
            ) from error
        if not isinstance(content, dict):
            raise InputError(
                f"{path}: expected a config file of Valohai with an object in braces, "
                f"got {type(content).__name__}."
            )
        if name == "inputs":
            _check_inputs(path, content)


def _check_inputs(path, inputs):
    for name, value in inputs.items():
        # Outside of Valohai, paths are accepted instead of descriptions of files.
        files = value.get("files", []) if isinstance(value, dict) else value
        values = files if isinstance(files, list) else [files]
        for file in values:
            is_named = isinstance(file, dict) and isinstance(file.get("name"), str)
            if not (is_named if isinstance(value, dict) else isinstance(file, str)):
                raise InputError(
                    f"{path}: input '{name}': expected a list of files with names, got "
                    f"{json.dumps(value)[:200]}."
                )
