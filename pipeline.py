"""The `train-superbai` pipeline: convert-superbai and weights, train, detect.

    vh yaml pipeline pipeline.py      writes it into valohai.yaml
    python pipeline.py                runs it on this machine, on a built-in sample
    python pipeline.py --convert-superbai.images=images.zip \\
        --convert-superbai.labels=labels.zip --train.epochs=20
    python pipeline.py --pipeline=label-superbai …        runs that of label_pipeline.py

Every input and parameter of a step is `--NODE.NAME=value`, as in `vh pipeline run`.
"""

import sys

import valohai


def main(old_config):
    """Returns the pipeline's definition; `vh yaml pipeline` calls this."""
    pipeline = valohai.Pipeline(name="train-superbai", config=old_config)

    # Named, as each would be called <step>_1 otherwise.
    convert = pipeline.execution("convert-superbai", name="convert-superbai")
    weights = pipeline.execution("weights", name="weights")
    train = pipeline.execution("train", name="train")
    detect = pipeline.execution("detect", name="detect")

    convert.output("classes.txt").to(train.input("classes"))
    convert.output("train/*").to(train.input("train"))
    convert.output("test/*").to(train.input("test"))
    weights.output("model/*").to(train.input("model"))

    convert.output("classes.txt").to(detect.input("classes"))
    convert.output("test/*").to(detect.input("image"))
    train.output("model/*").to(detect.input("model"))
    return pipeline


if __name__ == "__main__":
    import local_run

    sys.exit(local_run.run_command_line("train-superbai", sys.argv[1:]))
