"""The training loop: one `train_step`, one `eval_step`, under any `tf.distribute`.

It replaces `model.fit`, which does not run on several machines in
Keras 3 (keras issue 20585).
"""

import time

import numpy as np
import tensorflow as tf

from yolov3_tf2.data import records
from yolov3_tf2.errors import InputError
from yolov3_tf2.evaluation import coco, matching
from yolov3_tf2.inference import nms
from yolov3_tf2.network import folding
from yolov3_tf2.training import loss, replicas
from yolov3_tf2.training.evaluated_images import evaluated_images
from yolov3_tf2.training.gradients import LossScale, clip_gradients
from yolov3_tf2.training.means import Means
from yolov3_tf2.training.moving_average import MovingAverage
from yolov3_tf2.training.workers import collective


class Trainer:
    """Trains a model and evaluates the moving average of its weights.

    Attributes:
        model: the network that is trained.
        averaged: the network that is evaluated and saved; `model` itself where no
            average is kept.
        optimizers: list of optimizers, one for each group of layers.
        loss_scale: a `gradients.LossScale` for float16; None otherwise.
        max_boxes: number of detections per image that an evaluation keeps.
    """

    def __init__(
        self,
        model,
        averaged,
        variant,
        strategy,
        groups,
        *,
        box_loss,
        ema,
        clip_norm,
        max_boxes=coco.COCO_MAX_BOXES,
    ):
        """Call under `strategy.scope()`.

        Args:
            model: the result of `build_model`.
            averaged: another result of it, or `model`.
            variant: their `variants.Variant`.
            strategy: a `tf.distribute.Strategy`.
            groups: list of pairs of an optimizer and the layers that it updates.
                Frozen layers are not updated.
            box_loss: one of `loss.BOX_LOSSES`.
            ema: decay of the moving average, see `MovingAverage`.
            clip_norm: gradients with a larger global norm are scaled down to it.
            max_boxes: see the attribute, and `coco.detection_limit`.
        """
        self.model = model
        self.max_boxes = max_boxes
        self.averaged = averaged
        self.optimizers = [optimizer for optimizer, _ in groups]
        self._layers = [layers for _, layers in groups]
        self._average = MovingAverage(model, averaged, ema)
        self._variant = variant
        self._strategy = strategy
        self._box_loss = box_loss
        self._clip_norm = clip_norm
        self.loss_scale = None
        if model.layers[1].compute_dtype == "float16":
            self.loss_scale = LossScale()
        self._steps = tf.Variable(0.0, trainable=False)
        self._trained = model  # Or the same with its frozen layers folded.
        self._functions = {}

    def freeze(self, parts):
        """Freezes parts of the network until `thaw`, for faster steps.

        Their BatchNorm runs in inference mode and is folded into the convolutions.

        Args:
            parts: list of names from `model.PARTS`.
        """
        self._trained = folding.freeze_parts(self.model, parts)

    def thaw(self):
        """Trains the frozen layers from now on; does nothing if none are frozen.

        Releases the memory of their folded copy, up to 245 MB for yolov3.
        """
        if self._trained is not self.model:
            for layer in self.model.layers:
                layer.trainable = True
            _empty(self._trained, kept=self.model)
            self._trained = self.model
            self._functions = {
                (step, spec): function
                for (step, spec), function in self._functions.items()
                if step != self._train_step
            }

    def learning_rate(self):
        """Returns the learning rate of the next step, of the first group of layers."""
        return float(self.optimizers[0].learning_rate)

    def start_average(self):
        """Sets the average to the model's weights; call it before the first step."""
        self._average.start()

    def state(self):
        """Returns all variables that a checkpoint holds: a dict from name to variable.

        The names, those of the optimizers included, are keys in the checkpoints of
        earlier versions: changing one makes these unreadable.
        """
        variables = {"steps": self._steps}
        models = {"model": self.model, "averaged": self.averaged}
        for name, model in models.items():
            for variable in model.variables:
                variables[f"{name}/{variable.path}"] = variable.value
        for optimizer in self.optimizers:
            for variable in optimizer.variables:
                variables[f"{optimizer.name}/{variable.path}"] = variable.value
        if self.loss_scale:
            variables["loss_scale/scale"] = self.loss_scale.scale
            variables["loss_scale/good_steps"] = self.loss_scale.good_steps
        return variables

    def broadcast_state(self, value=None):
        """Copies the state of the first worker to all; returns the first's `value`."""
        collective.broadcast(self._strategy, list(self.state().values()))
        return collective.gather(self._strategy, value)[0]

    def train_epoch(self, dataset, paths, progress=iter):
        """Trains on every batch of a dataset once.

        Args:
            dataset: the `Batches` of `build_training_dataset`.
            paths: its TFRecord files, to name the images of a step that fails.
            progress: wraps the batches, for a progress bar.

        Returns:
            A dict: `loss` and its parts, means per image; `unassigned`, the number of
            boxes that could not be assigned to an anchor; `gradient_norm`, the mean of
            the steps; and `images_per_second`.

        Raises:
            InputError: the loss is not finite, or a record is invalid.
        """
        start = time.perf_counter()
        means, norms = Means(), []
        step = self.train_function(dataset)
        for batch, (losses, norm) in replicas.run_steps(
            self._strategy, step, dataset, progress
        ):
            means.add(losses)
            norms.append(float(norm))
            # A gradient that overflows float16 only lowers the loss scale.
            is_finite = np.isfinite(norms[-1]) or self.loss_scale
            if not (np.isfinite(means.last["loss"]) and is_finite):
                raise InputError(self._describe_failure(means, batch, paths))
        if not means.images:
            raise InputError("none of the training images can be decoded.")
        results = means.results()
        finite = [norm for norm in norms if np.isfinite(norm)]
        results["gradient_norm"] = float(np.mean(finite)) if finite else 0.0
        results["images_per_second"] = means.images / (time.perf_counter() - start)
        return results

    def train_function(self, dataset):
        """Returns the compiled step for the batches of a dataset.

        It takes the result of `replicas.copy_to_devices` and returns the sums of the
        losses and the norm of the gradients.
        """
        if self._trained is not self.model:
            folding.update_folded(self._trained, self.model)
        return self._function(self._train_step, dataset)

    def _describe_failure(self, means, batch, paths):
        """Returns the error message of a step whose loss or gradient is not finite."""
        shares = collective.gather(self._strategy, batch["numbers"].numpy().tolist())
        rows = records.read_examples(
            paths, sorted({n for share in shares for n in share})
        )
        names = ", ".join(row["source_id"].numpy().decode("utf-8") for row in rows)
        advice = (
            "lower --learning_rate or --clip_norm"
            if self.loss_scale is None
            else "try --precision=float32, or lower --learning_rate"
        )
        return (
            f"the loss is {means.last['loss']} at step {int(self._steps.numpy())}, "
            f"learning rate {self.learning_rate():.2g}; {advice}, and look at the "
            f"boxes of the images of this step: {names}."
        )

    def evaluate(self, dataset, class_names, size, progress=iter):
        """Computes the loss and the average precision on all batches of a dataset.

        Args:
            dataset: the `Batches` of `build_dataset`.
            class_names: list of strings.
            size: side of the network's input, pixels.
            progress: wraps the batches, for a progress bar.

        Returns:
            A dict: `val_loss`, its parts, the results of `average_precision`, the best
            `F1` with its `score_threshold`, if anything was found, and
            `images_left_out`, the number of images that cannot be decoded, if there
            are any; and a list of `coco.EvaluatedImage`.

        Raises:
            InputError: the loss is not finite, or a record is invalid.
        """
        means, images = Means(), []
        step = self._function(self._eval_step, dataset)
        for batch, (losses, selected) in replicas.run_steps(
            self._strategy, step, dataset, progress
        ):
            means.add(losses)
            selected = [
                replicas.concatenate_results(self._strategy, value)
                for value in selected
            ]
            images += evaluated_images(batch, selected, size)
        shares = collective.gather(self._strategy, images)
        images = [image for share in shares for image in share]
        unreadable = collective.gather(self._strategy, dataset.unreadable.names)
        unreadable = sum(unreadable, [])
        dataset.unreadable.check_number(unreadable)
        if not images:
            raise InputError("none of the evaluated images can be decoded.")
        results = {f"val_{name}": value for name, value in means.results().items()}
        results.pop("val_unassigned", None)
        if not np.isfinite(results["val_loss"]):
            raise InputError(
                f"the loss on the evaluated images is {results['val_loss']}: the "
                "network has diverged; lower --learning_rate, or use another --model."
            )
        if unreadable:
            results["images_left_out"] = len(unreadable)
        evaluation = coco.evaluate_images(images, class_names)
        results |= coco.average_precision(evaluation, class_names)
        f1, threshold = matching.best_f1(evaluation)
        if threshold is not None:
            results |= {"F1": f1, "score_threshold": threshold}
        return results, images

    def _train_step(self, parts):
        scale = self.loss_scale.scale if self.loss_scale else 1.0

        def replica_step(batch):
            context = tf.distribute.get_replica_context()
            num_images = context.all_reduce("SUM", tf.reduce_sum(batch["weights"]))
            num_images = tf.maximum(num_images, 1.0)  # All may be unreadable.
            with tf.GradientTape() as tape:
                logits = self._trained(batch["images"], training=True)
                losses = self._losses(logits, batch)
                scaled = losses["loss"] * scale / num_images
            groups = [
                [v for layer in layers for v in layer.trainable_variables]
                for layers in self._layers
            ]
            variables = [variable for group in groups for variable in group]
            gradients = tape.gradient(scaled, variables)
            # Summed over all replicas, then clipped, as on one device with the whole
            # batch: the optimizers must not sum again, see `optimizer._Summed`.
            gradients = context.all_reduce("SUM", gradients)
            gradients, norm = clip_gradients(
                gradients, self._clip_norm, self.loss_scale
            )
            for optimizer, group in zip(self.optimizers, groups, strict=True):
                if group:
                    optimizer.apply_gradients(zip(gradients, group, strict=False))
                    gradients = gradients[len(group) :]
            return context.all_reduce("SUM", losses), norm

        losses, norm = self._run_on_replicas(replica_step, parts)
        # They are equal on all replicas.
        losses, norm = tf.nest.map_structure(self._first_result, (losses, norm))
        if self.loss_scale:
            self.loss_scale.update(tf.math.is_finite(norm))
        self._steps.assign_add(1.0)
        self._average.update(self._steps)
        return losses, norm

    def _eval_step(self, parts):
        def replica_step(batch):
            logits = self.averaged(batch["images"], training=False)
            selected = nms.suppress(
                logits, self._variant, max_boxes=self.max_boxes, **coco.THRESHOLDS
            )
            losses = self._losses(logits, batch)
            context = tf.distribute.get_replica_context()
            return context.all_reduce("SUM", losses), selected

        losses, selected = self._run_on_replicas(replica_step, parts)
        return tf.nest.map_structure(self._first_result, losses), selected

    def _run_on_replicas(self, replica_step, parts):
        batch = replicas.to_per_replica(self._strategy, parts)
        return self._strategy.run(replica_step, (batch,))

    def _first_result(self, value):
        return replicas.first_result(self._strategy, value)

    def _losses(self, logits, batch):
        """Returns a dict of sums over the images of a replica, float32 scalars."""
        weights = batch["weights"]
        parts = loss.yolo_loss(
            logits, batch["targets"], batch["boxes"], self._variant, self._box_loss
        )
        sums = {name: tf.reduce_sum(weights * part) for name, part in parts.items()}
        return {
            "loss": tf.add_n(list(sums.values())),
            **sums,
            "unassigned": tf.reduce_sum(weights * batch["unassigned"]),
            "images": tf.reduce_sum(weights),
        }

    def _function(self, step, dataset):
        """Compiles a step to one graph for all shapes of a dataset's batches.

        With one graph per shape, results are rounded in a way that depends on the
        first batches: a resumed training would differ from an uninterrupted one.
        """
        parts = [dataset.element_spec] * len(self._strategy.extended.worker_devices)
        return self._functions.setdefault(
            (step, str(parts)), tf.function(step, [parts], autograph=False)
        )


def _empty(model, kept):
    """Releases the memory of a model's variables, except those of the model `kept`.

    TensorFlow keeps a graph with an `all_reduce`, and the variables that it reads,
    until the program ends.
    """
    kept = {id(variable) for variable in kept.variables}
    for variable in model.variables:
        if id(variable) not in kept:
            # One per device, where there are several.
            for part in getattr(variable.value, "values", [variable.value]):
                tf.raw_ops.AssignVariableOp(
                    resource=part.handle, value=tf.zeros([0], part.dtype)
                )
