"""What only Valohai has: versions and aliases of outputs, live uploads, a status.

All of it can be called elsewhere too: the properties of outputs are written to a file
that nothing else reads, and the rest does nothing.
"""

import os
import re
import threading
import time
from pathlib import Path

import valohai
from absl import logging

from valohai_step.outputs import outputs_folder
from yolov3_tf2.errors import InputError

# What the address of a dataset, a model or an alias can contain.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
STATUS_SECONDS = 10


def is_on_valohai():
    """Whether this process runs on a Valohai worker."""
    # `VH_JOB_ID` is set in local runs too; only a worker has the config of the API.
    return Path(valohai.paths.get_api_config_path()).is_file()


def is_in_sweep():
    """Whether this is one of the executions of a Valohai task that try out values.

    The executions of a distributed task train one model together, so that is not one.
    """
    is_distributed = valohai.distributed.is_distributed_task()
    return bool(os.environ.get("VH_TASK_ID")) and not is_distributed


def set_status(text):
    """Shows a line next to the execution in Valohai's lists.

    If it cannot be sent, the step continues after `STATUS_SECONDS` at most.
    """
    sender = threading.Thread(
        target=valohai.set_status_detail, args=(text,), daemon=True
    )
    sender.start()
    sender.join(STATUS_SECONDS)


def upload_now(paths):
    """Makes Valohai upload outputs now instead of at the end, and then delete them.

    Args:
        paths: list of `pathlib.Path` of finished files below the step's outputs. An
            execution must not upload the same name twice.
    """
    if is_on_valohai():
        for path in paths:
            valohai.outputs().live_upload(str(path))


def check_name(option, value):
    """Raises an `InputError` unless `value` is empty or a valid name in Valohai.

    Args:
        option: name of the option that has the value.
        value: a dataset, model, alias or tag.
    """
    if value and not _NAME.fullmatch(value):
        raise InputError(
            f"--{option}: expected letters, digits, '.', '_' and '-', got {value!r}; "
            "it is used in an address in Valohai."
        )


def split_tags(option, text):
    """Returns a comma-separated text as a list of tags.

    Raises:
        InputError: a tag is not a valid name.
    """
    tags = [tag.strip() for tag in text.split(",") if tag.strip()]
    for tag in tags:
        check_name(option, tag)
    return tags


def add_to_dataset(name):
    """Makes all outputs of the step a new version of a dataset, if it has a name."""
    if not name:
        return
    version = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    execution = valohai.execution().config
    if execution and execution.counter is not None:
        version += f"-{execution.counter}"
    uri = f"dataset://{name}/{version}"
    root = outputs_folder()
    _add_properties(
        {
            path.relative_to(root).as_posix(): {"valohai.dataset-versions": [uri]}
            for path in sorted(root.rglob("*"))
            if path.is_file() and not path.name.startswith(("valohai.", "."))
        }
    )
    logging.info("dataset version on Valohai: %s", uri)


def add_model(folder, name, alias, tags, note):
    """Registers the files of a model in Valohai as far as its arguments are not empty.

    An execution of a sweep only sets tags: it cannot know how good the other models
    are, and the last one to end would replace the best one.

    Args:
        folder: of the model, relative to the step's outputs.
        name: of the model in Valohai; the files become a new version of it.
        alias: the files get the aliases `ALIAS-json`, `ALIAS-index` and `ALIAS-data`,
            as an alias stands for one file. Earlier files lose them.
        tags: list of tags of the files and of the version.
        note: release note of the version.
    """
    if (name or alias) and is_in_sweep():
        logging.warning(
            "this is one of several executions of a task: %s/ gets no version and no "
            "alias; give them to the best model when the task has ended, see "
            "docs/valohai.md",
            folder,
        )
        name = alias = ""
    if not (name or alias or tags):
        return
    properties = {}
    root = outputs_folder()
    for path in sorted((root / folder).iterdir()):
        values = properties[path.relative_to(root).as_posix()] = {}
        if tags:
            values["valohai.tags"] = tags
        if alias:
            values["valohai.alias"] = f"{alias}-{_file_kind(path.name)}"
        if name:
            version = {"model_uri": f"model://{name}/", "model_release_note": note}
            if tags:
                version["model_version_tags"] = tags
            values["valohai.model-versions"] = [version]
    _add_properties(properties)
    logging.info(
        "on Valohai, %s/ gets: %s",
        folder,
        ", ".join(
            text
            for text, value in (
                (f"a version of model://{name}", name),
                (f"the aliases datum://{alias}-…", alias),
                (f"the tags {', '.join(tags)}", tags),
            )
            if value
        ),
    )


def _file_kind(name):
    """Returns the part of a model's file name that differs: `json`, `index`, `data`."""
    return re.sub(r".*\.(json|index|data).*", r"\1", name)


def _add_properties(properties):
    with valohai.output_properties() as writer:
        for file, values in properties.items():
            writer.add(file=file, properties=values)
