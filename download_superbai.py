"""Downloads a version from Superb AI's new platform, as an export of the Suite.

    python download_superbai.py --project "My project" --version v1

Writes `images.zip` and `labels.zip`, the inputs of convert_superbai.py. The environment
variables SUPERB_AI_API_KEY and SUPERB_AI_TENANT hold the credentials. A version is what
the platform freezes of a project: its images, tags, classes and labels.
"""

import valohai_step.startup  # noqa: F401

import valohai
from absl import logging

from superbai.platform import platform_credentials, platform_version
from superbai.platform.platform_api import PlatformApi
from superbai.platform.platform_lookup import find_project, find_version
from valohai_step import runtime
from valohai_step.outputs import log_metadata, progress_bar, staged_outputs
from valohai_step.parameters import read_parameters, without_command_line
from yolov3_tf2.errors import InputError, list_first

PARAMETERS = {
    "project": {
        "default": "",
        "category": "Version",
        "description": "Name of the image project on the platform; its id where "
        "several have one name.",
    },
    "version": {
        "default": "",
        "optional": True,
        "category": "Version",
        "description": "Name or id of the version. Empty: the newest that is ready.",
    },
    "model_shapes": {
        "default": "skip",
        "category": "Labels",
        "choices": ["skip", "use"],
        "description": "What to do with shapes that a model has drawn, which may be "
        "the boxes of an earlier upload: skip them; or use them, if people have "
        "checked all of them.",
    },
    "empty_images": {
        "default": "skip",
        "category": "Labels",
        "choices": ["skip", "use"],
        "description": "What to do with images without any shape: skip them, as a "
        "version does not say whether somebody has looked at them; or use them as "
        "images without objects.",
    },
}
INPUTS = {}
with without_command_line():
    valohai.prepare(
        step="download-superbai",
        image="python:3.11-slim",
        default_parameters=PARAMETERS,
        default_inputs=INPUTS,
    )


def main():
    values = read_parameters(PARAMETERS, INPUTS)
    if not values["project"]:
        raise InputError("--project: expected the name of a project on the platform.")
    api = PlatformApi(platform_credentials.read_credentials())
    api.redact.install()
    project = find_project(api, values["project"])
    version = find_version(api, project, values["version"])
    reader = platform_version.VersionReader(
        api,
        project,
        version,
        with_models=values["model_shapes"] == "use",
        with_empty=values["empty_images"] == "use",
    )
    logging.info(
        "project '%s', version '%s' of %s: %d images to fetch",
        project["name"],
        version["name"],
        str(version.get("created_at"))[:10],
        len(reader.assets),
    )
    bar = progress_bar(total=len(reader.assets), unit=" images")
    with staged_outputs() as folder, bar:
        reader.write(folder, bar)
    log_summary(reader)


def log_summary(reader):
    """Logs what a `VersionReader` has written and left out, as text and as metadata."""
    counts = ", ".join(f"{number} {what}" for what, number in reader.counts.items())
    logging.info("downloaded: %s", counts)
    for reason, number in reader.left_out.items():
        logging.info("left out: %d %s", number, reason)
    if reader.unreadable:
        names = list_first(reader.unreadable, ", ", 3)
        logging.warning("no images, so left out: %s", names)
    if reader.num_partly:
        logging.warning(
            "%d images have shapes of a model, which are left out, beside others: are "
            "their labels complete without these? See --model_shapes",
            reader.num_partly,
        )
    if reader.num_rotated:
        logging.warning(
            "%d images have an EXIF rotation: the platform does not document which "
            "way up their boxes are drawn, so check preview.jpg of convert-superbai",
            reader.num_rotated,
        )
    log_metadata(
        images=reader.counts["images"],
        boxes=reader.counts["boxes"],
        left_out_images=sum(
            reader.left_out[reason]
            for reason in (
                platform_version.EMPTY,
                platform_version.PURGED,
                platform_version.ONLY_MODELS,
                platform_version.UNREADABLE,
            )
        ),
        left_out_model_shapes=reader.left_out[platform_version.OF_MODELS],
    )


if __name__ == "__main__":
    runtime.run_step(main)
