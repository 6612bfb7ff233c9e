"""The `train-superbai` pipeline: convert-superbai and weights, train, detect.

    python -m valohai_step.write_yaml   writes it into valohai.yaml
    python pipeline.py                  runs it on this machine, on a built-in sample
    python pipeline.py --model=yolov3-tiny --epochs=20 \\
        --convert-superbai.images=images.zip --convert-superbai.labels=labels.zip
    python pipeline.py --pipeline=label-superbai …   runs that of label_pipeline.py

Its own parameters are `--NAME=value`; every input and parameter of a step is
`--NODE.NAME=value`, as in `vh pipeline run`.
"""

import sys

import valohai
from valohai_yaml.objs.pipelines.node_action import NodeAction
from valohai_yaml.objs.pipelines.pipeline_parameter import PipelineParameter


class Pipeline(valohai.Pipeline):
    """A pipeline with parameters of its own and conditions, which papi leaves out."""

    def __init__(self, config, *, name):
        super().__init__(config, name=name)
        self._parameters, self._actions = [], {}

    def share(self, name, *nodes):
        """Makes a parameter of nodes one of the pipeline, as the first of them has it.

        Args:
            name: of the parameter.
            nodes: those that have it.
        """
        of_step = nodes[0].step.parameters[name]
        targets = [f"{node.name}.parameters.{name}" for node in nodes]
        parameter = PipelineParameter(
            name=name,
            default=of_step.default,
            targets=targets,
            category=of_step.category,
            description=of_step.description,
        )
        self._parameters.append(parameter)

    def stop_after(self, node, condition):
        """Ends the pipeline after a node, where a condition on its metadata holds."""
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

    pipeline.share("model", weights)
    pipeline.share("epochs", train)
    pipeline.share("size", train)  # And detect's, which takes that of the model.
    pipeline.share("precision", train, detect)
    pipeline.share("min_ap50", train)
    pipeline.stop_after(train, "metadata.below_min_ap50 == 1")
    return pipeline


if __name__ == "__main__":
    from valohai_step.local import runner

    sys.exit(runner.run_command_line("train-superbai", sys.argv[1:]))
