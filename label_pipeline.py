"""The pipeline `label-superbai`: detect, then upload-superbai.

    python -m valohai_step.write_yaml                writes it into valohai.yaml
    python pipeline.py --pipeline=label-superbai …   runs it on this machine

The boxes that the model detects are uploaded to a project of the Suite, where people
correct them.
"""

# `vh yaml pipeline` runs this file without the repository on Python's path, so nothing
# of the project is imported at the top.

import valohai


def main(old_config):
    """Returns the pipeline's definition; `vh yaml pipeline` calls this."""
    pipeline = valohai.Pipeline(name="label-superbai", config=old_config)
    detect = pipeline.execution("detect", name="detect")
    upload = pipeline.execution("upload-superbai", name="upload-superbai")
    detect.output("detections.json").to(upload.input("annotations"))
    detect.output("review.csv").to(upload.input("review"))
    return pipeline
