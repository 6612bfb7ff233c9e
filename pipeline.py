"""The pipeline `train-superbai`: convert-superbai and weights, then train, then detect.

    python -m valohai_step.write_yaml   writes it into valohai.yaml
    python pipeline.py                  runs it on this machine with a built-in sample
    python pipeline.py --model=yolov3-tiny --epochs=20 \\
        --convert-superbai.images=images.zip --convert-superbai.labels=labels.zip
    python pipeline.py --pipeline=label-superbai …   runs that of label_pipeline.py

`--NAME=value` sets a parameter of the pipeline, `--NODE.NAME=value` an input or a
parameter of a step, as in `vh pipeline run`.
"""

# `vh yaml pipeline` runs this file without the repository on Python's path, so nothing
# of the project is imported at the top.

import sys

if __name__ == "__main__":
    import valohai_step.startup  # noqa: F401

import valohai
from valohai_yaml.objs.pipelines.node_action import NodeAction
from valohai_yaml.objs.pipelines.pipeline_parameter import PipelineParameter


class Pipeline(valohai.Pipeline):
    """A pipeline with parameters and conditions, which `valohai.Pipeline` lacks."""

    def __init__(self, config, *, name):
        super().__init__(config, name=name)
        self._parameters, self._actions = [], {}

    def share(self, name, *nodes):
        """Adds a parameter to the pipeline that sets the same parameter of nodes.

        Args:
            name: of the parameter.
            nodes: that have it; the default and the description are those of the first.
        """
        declared = nodes[0].step.parameters[name]
        targets = [f"{node.name}.parameters.{name}" for node in nodes]
        parameter = PipelineParameter(
            name=name,
            default=declared.default,
            targets=targets,
            category=declared.category,
            description=declared.description,
        )
        self._parameters.append(parameter)

    def stop_after(self, node, condition):
        """Stops the pipeline after a node if a condition on its metadata holds."""
        action = NodeAction(when="node-complete", if_=condition, then="stop-pipeline")
        self._actions[node.name] = [action]

    def to_yaml(self, yaml_context=None):
        """Returns the definition for valohai.yaml."""
        definition = super().to_yaml(yaml_context)
        definition.parameters = self._parameters
        for node in definition.nodes:
            node.actions = self._actions.get(node.name, [])
        return definition


def main(old_config):
    """Returns the pipeline's definition; `vh yaml pipeline` calls this."""
    pipeline = Pipeline(old_config, name="train-superbai")

    # Without a name each node would be called <step>_1.
    convert = pipeline.execution("convert-superbai", name="convert-superbai")
    weights = pipeline.execution("weights", name="weights")
    train = pipeline.execution("train", name="train")
    detect = pipeline.execution("detect", name="detect")

    convert.output("classes.txt").to(train.input("classes"))
    convert.output("train/*").to(train.input("train"))
    convert.output("test/*").to(train.input("test"))
    # Always has a file, which is empty where no image is tagged for validation.
    convert.output("validation/*").to(train.input("validation"))
    weights.output("model/*").to(train.input("model"))

    convert.output("classes.txt").to(detect.input("classes"))
    convert.output("test/*").to(detect.input("image"))
    train.output("model/*").to(detect.input("model"))

    pipeline.share("model", weights)
    pipeline.share("epochs", train)
    pipeline.share("size", train)  # detect takes its size from the model.
    pipeline.share("precision", train, detect)
    pipeline.share("min_ap50", train)
    pipeline.stop_after(train, "metadata.below_min_ap50 == 1")
    return pipeline


if __name__ == "__main__":
    from valohai_step.local import runner

    sys.exit(runner.run_command_line("train-superbai", sys.argv[1:]))
