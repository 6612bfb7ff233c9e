"""The `label-superbai` pipeline: detect, then upload-superbai.

    python -m valohai_step.write_yaml                     writes it into valohai.yaml
    python pipeline.py --pipeline=label-superbai …        runs it on this machine

What the model finds in pictures goes to a project of the Suite, to be corrected there.
"""

import valohai


def main(old_config):
    """Returns the pipeline's definition; `vh yaml pipeline` calls this."""
    pipeline = valohai.Pipeline(name="label-superbai", config=old_config)
    detect = pipeline.execution("detect", name="detect")
    upload = pipeline.execution("upload-superbai", name="upload-superbai")
    detect.output("detections.json").to(upload.input("annotations"))
    detect.output("review.csv").to(upload.input("review"))
    return pipeline
