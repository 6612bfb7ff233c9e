"""What a step does for Valohai alone: versions of its outputs, uploads, its status.

All of it is safe elsewhere: properties are a file that nothing else reads, and the rest
does nothing.
"""

import re
import threading
import time
from pathlib import Path

import valohai
from absl import logging

from valohai_step.outputs import outputs_folder
from yolov3_tf2.errors import InputError

# What can stand in the address of a dataset, a model or an alias.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
STATUS_SECONDS = 10


def is_on_valohai():
    """Whether a worker of Valohai runs this process."""
    # `VH_JOB_ID` is set in local runs too; only a worker can reach Valohai.
    return Path(valohai.paths.get_api_config_path()).is_file()


def set_status(text):
    """Shows a line beside the execution in Valohai's lists.

    A status that does not arrive ends nothing, and holds nothing up for long.
    """
    sender = threading.Thread(
        target=valohai.set_status_detail, args=(text,), daemon=True
    )
    sender.start()
    sender.join(STATUS_SECONDS)


def upload_now(paths):
    """Has Valohai upload outputs at once, and take them away once it has.

    Args:
        paths: list of `pathlib.Path` below the step's outputs, which nobody writes to
            any more. Their names must be new ones in this execution.
    """
    if is_on_valohai():
        for path in paths:
            valohai.outputs().live_upload(str(path))


def check_name(option, value):
    """Raises an `InputError` unless `value` can name something in Valohai, or is empty.

    Args:
        option: what it was given as.
    """
    if value and not _NAME.fullmatch(value):
        raise InputError(
            f"--{option}: expected letters, digits, '.', '_' and '-', got {value!r}; "
            "it becomes part of an address in Valohai."
        )


def split_tags(option, text):
    """Returns the tags of a text with commas between them, a list.

    Raises:
        InputError: one of them cannot be a tag.
    """
    tags = [tag.strip() for tag in text.split(",") if tag.strip()]
    for tag in tags:
        check_name(option, tag)
    return tags


def add_to_dataset(name):
    """Makes all outputs of the step a new version of a dataset; none without a name."""
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
    logging.info("the outputs become %s on Valohai", uri)


def add_model(folder, name, alias, tags, note):
    """Gives the files of a model a place in Valohai's history, where it is asked for.

    Args:
        folder: of the model, a name below the step's outputs.
        name: of the model in Valohai that they become a version of; empty: of none.
        alias: by which they can be given as inputs, `datum://ALIAS-json` and the like,
            as an alias is of one file: it moves from the last files that had it. Empty:
            none.
        tags: list of tags of the files and of the version.
        note: what the version says of itself.
    """
    if not (name or alias or tags):
        return
    properties = {}
    root = outputs_folder()
    for path in sorted((root / folder).iterdir()):
        own = properties[path.relative_to(root).as_posix()] = {}
        if tags:
            own["valohai.tags"] = tags
        if alias:
            own["valohai.alias"] = f"{alias}-{_part(path.name)}"
        if name:
            version = {"model_uri": f"model://{name}/", "model_release_note": note}
            if tags:
                version["model_version_tags"] = tags
            own["valohai.model-versions"] = [version]
    _add_properties(properties)
    logging.info(
        "on Valohai the files of %s/ get: %s",
        folder,
        ", ".join(
            text
            for text, is_given in (
                (f"a version of model://{name}", name),
                (f"the aliases datum://{alias}-…", alias),
                (f"the tags {', '.join(tags)}", tags),
            )
            if is_given
        ),
    )


def _part(name):
    """What tells the files of a model apart: `json`, `index` or `data`."""
    return re.sub(r".*\.(json|index|data).*", r"\1", name)


def _add_properties(properties):
    with valohai.output_properties() as writer:
        for file, values in properties.items():
            writer.add(file=file, properties=values)
