"""EPNet: a Keras model with an exit after every convolution and controllers."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from epnet_tf import objective
from epnet_tf.data import streams
from epnet_tf.data.pixels import warn_of_range
from epnet_tf.model import copying, graph, main_branch, summary, transfer
from epnet_tf.model.assembly import Heads, assemble
from epnet_tf.model.classifiers import BranchClassifier, PaperClassifier
from epnet_tf.model.cost import (
    ExitCosts,
    check_layers,
    costs_by_exits,
    costs_with_exits,
    exit_costs,
    given_costs,
)
from epnet_tf.model.heads import ConfidenceThreshold, Controller, PaperController
from epnet_tf.model.pretrained import as_layer
from epnet_tf.model.states import ExitStates, split_state_model, state_model
from epnet_tf.runtime import typed_json, units
from epnet_tf.runtime.cost_table import CostTable
from epnet_tf.runtime.prediction import Prediction, check_beta, from_named


@keras.saving.register_keras_serializable("epnet_tf")
class EPNet(keras.Model):
    """A network with exits, and controllers that learn when to stop (paper, section 4).

    A functional `keras.Model` on the layers of `backbone` (weights are shared with
    it), from raw images to a flat dict: logits `logits_01` … `logits_NN` [b, classes]
    and stop logits `stop_01` … [b, 1], one less. Exits are counted from 1; the last
    one is the network itself and has no controller.

    Usage:

    ```python
    model = epnet_tf.EPNet(backbone, num_classes=10)

    classifiers = epnet_tf.ClassifierTrainer(model)
    classifiers.compile(optimizer="adam")
    classifiers.fit(x_train, y_train, epochs=10)

    controllers = epnet_tf.ControllerTrainer(model, beta=5e-7)
    controllers.compile(optimizer="adam")
    controllers.fit(x_train, y_train, epochs=10)

    label, exit, macs, probabilities = model.classify(x_test)
    ```

    Args:
        backbone: A functional or Sequential model with one image input [h, w, c]. It
            is headless (ends in a feature map or pooled features) or ends in a `Dense`
            classifier of `num_classes`, whose softmax is taken off and whose weights
            are copied (`split_classifier` has what else can be one). Of layers with
            one name in models nested in it, or with a name that is the EPNet's own,
            the later is called `name_2`.
        num_classes: Number of classes, at least 2.
        exits: None for an exit after every convolution that is worth its head, an int
            for about that many, spread evenly over the MACs and at the ends of blocks,
            where little crosses the cut, or a list of layer names.
        controller: How controllers are built: `Controller` or `PaperController`; or
            `ConfidenceThreshold`, which `with_thresholds` puts in their place.
        classifier: How branch classifiers are built: `BranchClassifier` or
            `PaperClassifier`; the last exit, the network itself, has the paper's.
        preprocessing: A layer applied to the raw images (0 to 255) before the
            backbone, or `preprocess_input` of a network of `keras.applications`; None
            gives it the raw values.
        beta: Cost sensitivity that the controllers were trained for, in percentage
            points per MAC, or per unit of `costs`; set by `ControllerTrainer`.
        beta_range: If given, (low, high): controllers take β as a second input, the
            model's inputs are the dict `image` and `beta` [b, 1].
        layer_macs: MACs of layers with weights that cannot be counted, by layer name.
        costs: What leaving costs in another unit than MACs: see `costs`.
        frozen: Whether the main branch, and the classifier that the backbone ends in,
            are to stay as they are, bit for bit, whatever is trained: see `frozen`.

    Raises:
        ValueError: If backbone, exits or costs are not as said above.
    """

    def __init__(
        self,
        backbone: keras.Model,
        num_classes: int,
        exits: int | Sequence[str] | None = None,
        controller: Controller | PaperController | ConfidenceThreshold | None = None,
        classifier: BranchClassifier | PaperClassifier | None = None,
        preprocessing: keras.layers.Layer | Callable | None = None,
        beta: float | None = None,
        beta_range: tuple[float, float] | None = None,
        layer_macs: Mapping[str, int] | None = None,
        costs: CostTable | None = None,
        frozen: bool = False,
        name: str = "epnet",
        **kwargs,
    ):
        main_branch.check_backbone(backbone)
        _check(num_classes, beta, beta_range)
        heads = Heads(
            num_classes,
            classifier or BranchClassifier(),
            controller or Controller(),
            beta_range,
        )
        preprocessing = as_layer(preprocessing)
        parts = assemble(backbone, heads, exits, preprocessing, layer_macs)
        super().__init__(parts.inputs, parts.outputs, name=name, **kwargs)

        # In an object of its own, whose layers Keras does not track a second time.
        self._parts = parts
        self.num_classes = num_classes
        self.num_exits = len(parts.places)
        self.exit_layers = tuple(place.layer for place in parts.places)
        self.beta = beta
        self.beta_range = (beta_range[0], beta_range[1]) if beta_range else None
        self.exit_macs: ExitCosts = exit_costs(self, layer_macs)
        check_layers(costs, self.exit_layers)
        self._costs = costs
        own = parts.classifier
        if own is not None:
            last = self.get_layer(f"logits_{self.num_exits:02d}")
            last.set_weights([own.kernel, own.bias])
            last.trainable = last.trainable and own.trainable
        self._frozen = False
        if frozen:
            self.frozen = True

    def classify(self, images, batch_size: int = 256, beta=None) -> Prediction:
        """Classifies images with early exit: each answers where its controller stops.

        Keras computes a batch through all exits and the answers are picked from it;
        `SegmentRunner` is what saves time.

        Args:
            images: [n, h, w, c], raw values 0 to 255; `StreamedImages`; or a
                `tf.data.Dataset` of images, or of images and labels.
            batch_size: Images computed at a time; a data set's own batches stay.
            beta: Cost sensitivity, points per unit of cost; only with `beta_range`.

        Returns:
            A `Prediction`; `macs` counts all that runs until the exit has answered.

        Raises:
            ValueError: If the images have another shape than the model's input, or β
                is missing, superfluous or out of range.
        """
        images = streams.in_batches(images, batch_size)
        streamed = isinstance(images, tf.data.Dataset)
        images = images if streamed else np.asarray(images)
        shape = images.element_spec.shape if streamed else images.shape
        if not tf.TensorShape([None, *self.image_shape]).is_compatible_with(shape):
            raise ValueError(
                f"Expected images of shape [n, {', '.join(map(str, self.image_shape))}]"
                f". Received: shape {list(shape)}."
            )
        inputs = self.with_beta(images, beta)
        some = next(iter(images), None) if streamed else images
        if some is not None and len(some):
            warn_of_range(some)
            outputs = self.predict(inputs, batch_size=batch_size, verbose=0)
        else:  # Keras predicts nothing without a batch.
            outputs = {
                name: np.empty([0, *tensor.shape[1:]], "float32")
                for name, tensor in self.output.items()
            }
        return from_named(outputs).answers(self.exit_macs.with_controllers)

    @property
    def costs(self) -> CostTable | None:
        """What leaving costs on a device, in its unit; None counts multiply-adds.

        Controllers are trained for it, policies pay it and budgets are in it. Set it
        to what `epnet_tf.read_costs` gives before controllers are trained: with
        another unit those that there are count as untrained.

        Raises:
            ValueError: If it is set to costs of another network, or to another unit
                than that of the model's `beta_range`.
        """
        return self._costs

    @costs.setter
    def costs(self, costs: CostTable | None):
        check_layers(costs, self.exit_layers)
        before = self.exit_costs.unit
        self._costs, old = costs, self._costs
        unit = self.exit_costs.unit
        if unit == before:
            return
        if self.beta_range is not None:
            self._costs = old
            raise ValueError(
                f"Expected costs in {units.name(before)}, which the model's beta_range "
                f"is per. Received: in {units.name(unit)}."
            )
        self.beta = None

    @property
    def exit_costs(self) -> ExitCosts:
        """What leaving through each exit costs: `exit_macs`, or in the unit of `costs`.

        Policies pay this.
        """
        if self.costs is None:
            return self.exit_macs
        return given_costs(self.costs)(range(1, self.num_exits + 1))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images."""
        images = self.input["image"] if self.beta_range else self.input
        return tuple(images.shape[1:])

    @property
    def preprocessing(self) -> keras.layers.Layer | None:
        """What raw images go through before the backbone."""
        return self._parts.preprocessing

    @property
    def frozen(self) -> bool:
        """Whether only heads are trained.

        Then no stage changes the main branch or the classifier that the backbone ended
        in, batch statistics included, with whatever optimizer: they run as in
        inference, and their layers, which are the backbone's own, are not trainable.
        Set it to False, before a trainer is made, to train them on.
        """
        return self._frozen

    @frozen.setter
    def frozen(self, frozen: bool):
        # Else layers that the user has frozen one by one would not stay so.
        if bool(frozen) != self._frozen:
            self._frozen = bool(frozen)
            self._set_main_branch_trainable(not frozen)

    @property
    def trainable(self) -> bool:
        """As Keras's; what is `frozen` stays so."""
        return super().trainable

    @trainable.setter
    def trainable(self, trainable: bool):
        keras.Model.trainable.fset(self, trainable)
        if getattr(self, "_frozen", False):
            self._set_main_branch_trainable(False)

    def _set_main_branch_trainable(self, trainable: bool) -> None:
        parts = self._parts
        found = [
            node.operation
            for node in graph.ancestors([*parts.features, parts.end])
            if isinstance(node.operation, keras.layers.Layer)
        ]
        if parts.ends_in_classifier:
            found.append(self.get_layer(f"logits_{self.num_exits:02d}"))
        for layer in found:
            layer.trainable = trainable

    @property
    def exit_features(self) -> tuple[keras.KerasTensor, ...]:
        """What each exit reads of the main branch: N symbolic tensors."""
        return self._parts.features

    def exit_summary(self, states: ExitStates | None = None) -> str:
        """A table of the exits.

        Args:
            states: States of held-out images (`compute_states`), to tell accuracies.

        Returns:
            For each exit its layer, the shape of what it reads, the MACs of leaving
            through it, their share of the plain network, the weights of its head,
            number and values of the tensors that cross the cut, and its accuracy.
        """
        return summary.table(summary.exit_rows(self, states))

    def with_beta(self, images, beta: float | None):
        """The model's input for images at one β.

        Args:
            images: [n, h, w, c]; or `StreamedImages`, or a `tf.data.Dataset` of images.
            beta: Cost sensitivity, or None for a model without `beta_range`.

        Returns:
            The images, or the dict `image`, `beta` for a model with `beta_range`;
            streamed images as a `tf.data.Dataset` of batches of that.

        Raises:
            ValueError: If β is missing, superfluous or out of range.
        """
        check_beta(beta, self.beta_range, self.beta)
        images = streams.in_batches(images)
        if beta is None:
            return images
        if isinstance(images, tf.data.Dataset):
            return images.map(
                lambda x: {"image": x, "beta": tf.fill([tf.shape(x)[0], 1], beta)}
            )
        return {"image": images, "beta": np.full([len(images), 1], beta, "float32")}

    def copy(self) -> "EPNet":
        """The same model with weights of its own; it is not compiled.

        Layers need not be registered with Keras for that, as they have to be for a
        file; those without weights are shared.

        Returns:
            A new `EPNet`.

        Raises:
            ValueError: If a layer cannot be made again from its configuration.
        """
        twin = self.with_new_controllers(beta_range=self.beta_range)
        twin.beta = self.beta
        transfer.copy_controllers(self, twin)
        transfer.freeze_heads(twin, transfer.frozen_heads(self))
        return twin

    def with_new_controllers(
        self, controller=None, beta_range: tuple[float, float] | None = None
    ) -> "EPNet":
        """The same main branch and classifiers with other, untrained controllers.

        Args:
            controller: How they are built; None builds them as this model's are.
            beta_range: As in the constructor.

        Returns:
            A new `EPNet` with copies of the weights.

        Raises:
            ValueError: If a layer cannot be made again from its configuration.
        """
        twin = self._cloned(
            controller=controller or self._parts.heads.controller, beta_range=beta_range
        )
        copying.copy_state(state_model(self), state_model(twin))
        controllers = {controller.name for controller in transfer.controllers(self)}
        frozen = transfer.frozen_heads(self)
        kept = [path for path in frozen if path.partition("/")[0] not in controllers]
        transfer.freeze_heads(twin, kept)
        return twin

    def with_new_classifiers(
        self, classifier: BranchClassifier | PaperClassifier | None = None
    ) -> "EPNet":
        """The same main branch with other, untrained branch classifiers.

        The last exit, which is the network itself, keeps its classifier. Controllers,
        which read what the others answer, are untrained as well.

        Args:
            classifier: How they are built; None builds them as this model's are.

        Returns:
            A new `EPNet` with copies of the weights.

        Raises:
            ValueError: If a layer cannot be made again from its configuration.
        """
        twin = self._cloned(classifier=classifier or self._parts.heads.classifier)
        source, target = (split_state_model(model)[0] for model in (self, twin))
        copying.copy_state(source, target)
        last = f"logits_{self.num_exits:02d}"
        twin.get_layer(last).set_weights(self.get_layer(last).get_weights())
        transfer.freeze_heads(twin, {last} & set(transfer.frozen_heads(self)))
        return twin

    def with_thresholds(
        self, confidence: Sequence[float] | np.ndarray, beta: float
    ) -> "EPNet":
        """The same main branch and classifiers with thresholds instead of controllers.

        An image leaves where its largest softmax probability is above the threshold.
        With 0 all leave, with 1 none; `epnet_tf.policies.tuned_confidence` finds what
        pays.

        Args:
            confidence: A threshold for each exit but the last one, 0 to 1.
            beta: Cost sensitivity that they were tuned for.

        Returns:
            A new `EPNet` with copies of the weights.

        Raises:
            ValueError: If the thresholds are not as said above.
        """
        objective.check_beta(beta)
        thresholds = np.asarray(confidence, "float64")
        # NaN compares as False.
        if thresholds.shape != (self.num_exits - 1,) or not all(
            0 <= c <= 1 for c in thresholds
        ):
            raise ValueError(
                f"Expected {self.num_exits - 1} confidences from 0 to 1, one for each "
                f"exit but the last. Received: confidence={confidence}."
            )
        twin = self.with_new_controllers(ConfidenceThreshold())
        for limit, threshold in zip(twin._limits(), thresholds, strict=True):
            limit.assign([1.0 - threshold])
        twin.beta = float(beta)
        return twin

    @property
    def confidence(self) -> tuple[float, ...] | None:
        """The exits' thresholds (`with_thresholds`); None of a model that learns."""
        if not isinstance(self._parts.heads.controller, ConfidenceThreshold):
            return None
        return tuple(1.0 - float(limit.numpy()[0]) for limit in self._limits())

    def _limits(self) -> list:
        heads = transfer.controllers(self)
        return [head.get_layer("stop").limit for head in heads]

    def with_exits(self, names: Sequence[str]) -> "EPNet":
        """The same network with some of its exits, whose heads stay as trained.

        Controllers were trained for the exits that there were: train them again. What
        leaving costs in another unit than MACs is estimated (see `costs_by_exits`):
        measure it again on a bundle of the new model.

        Args:
            names: Of `exit_layers`; the last exit, the network itself, stays anyway.

        Returns:
            A new `EPNet` with copies of the weights.

        Raises:
            ValueError: If there is no such exit.
        """
        unknown = [name for name in names if name not in self.exit_layers]
        if unknown:
            raise ValueError(
                f"Expected names of exits: {', '.join(self.exit_layers)}. "
                f"Received: {', '.join(map(repr, unknown))}."
            )
        source = self.copy()
        chosen = source._made_anew(
            source._parts.backbone,
            exits=list(names),
            beta=self.beta,
            costs=self.costs and costs_with_exits(self.costs, names),
        )
        transfer.copy_heads(source, chosen)
        return chosen

    def costs_by_exits(self) -> Callable[[Sequence[int]], ExitCosts]:
        """What leaving would cost if the model had some of its exits only.

        Returns:
            Numbers of exits, from 1 and ascending, to their `ExitCosts`. Those in
            another unit than MACs are estimated: each exit but the last is taken to
            take as long as any other.
        """
        if self.costs is None:
            return costs_by_exits(self, self._parts.layer_macs)
        return given_costs(self.costs)

    def _cloned(self, **changes) -> "EPNet":
        """As `_made_anew`, on layers with weights of their own, not yet equal ones."""
        parts = self._parts
        return self._made_anew(
            copying.clone(parts.backbone),
            preprocessing=copying.clone(parts.preprocessing),
            **changes,
        )

    def _made_anew(self, backbone: keras.Model, **changes) -> "EPNet":
        """An EPNet as this one is, on a backbone, but for some arguments."""
        parts = self._parts
        arguments = {
            "exits": list(self.exit_layers[:-1]),
            "controller": parts.heads.controller,
            "classifier": parts.heads.classifier,
            "preprocessing": parts.preprocessing,
            "beta_range": self.beta_range,
            "layer_macs": parts.layer_macs,
            "costs": self.costs,
            "frozen": self.frozen,
            "name": self.name,
            "trainable": self.trainable,
        }
        return type(self)(backbone, self.num_classes, **(arguments | changes))

    def head_layers(self) -> list:
        """The layers that are not the backbone's: classifiers and controllers."""
        nodes = graph.ancestors([self._parts.end])
        backbone = {node.operation.name for node in nodes}
        return [layer for layer in self.layers if layer.name not in backbone]

    def _run_through_graph(self, inputs, **kwargs):
        # Private to Keras, but the only place where its `clone_model`, which would
        # make a plain model without exits, passes (tests/test_copying.py).
        caller = getattr(kwargs.get("operation_fn"), "__module__", "")
        if caller == keras.models.clone_model.__module__:
            raise ValueError(
                "Expected an EPNet to be copied by its own copy(). Received: "
                f"'{self.name}' in keras.models.clone_model, which would give a model "
                "without exits."
            )
        return super()._run_through_graph(inputs, **kwargs)

    def get_config(self):
        """The constructor's arguments, with the exits by name.

        The backbone is told layer by layer, models nested in it laid open, so that
        names, and with them the exits, are the same when it is loaded.
        """
        parts = self._parts
        serialize = keras.saving.serialize_keras_object
        return {
            "backbone": serialize(parts.backbone),
            "num_classes": self.num_classes,
            "exits": list(self.exit_layers[:-1]),
            "controller": serialize(parts.heads.controller),
            "classifier": serialize(parts.heads.classifier),
            "preprocessing": serialize(parts.preprocessing),
            "beta": self.beta,
            "beta_range": self.beta_range,
            "layer_macs": parts.layer_macs,
            "costs": self.costs and typed_json.encode(self.costs),
            "frozen": self.frozen,
            "name": self.name,
            "trainable": self.trainable,
            "frozen_heads": transfer.frozen_heads(self),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Makes the model from `get_config`'s answer."""
        config = copy.deepcopy(config)  # Keras empties what it deserializes.
        frozen = config.pop("frozen_heads", [])
        for key in ("backbone", "controller", "classifier", "preprocessing"):
            config[key] = keras.saving.deserialize_keras_object(
                config.get(key), custom_objects=custom_objects
            )
        if config.get("costs"):
            config["costs"] = typed_json.decode(CostTable, config["costs"], "costs")
        # Models saved before there was a choice have the paper's.
        config["classifier"] = config["classifier"] or PaperClassifier()
        model = cls(**config)
        transfer.freeze_heads(model, frozen)
        return model


def _check(num_classes, beta, beta_range):
    if num_classes < 2:
        raise ValueError(
            f"Expected at least 2 classes. Received: num_classes={num_classes}."
        )
    if beta is not None:
        objective.check_beta(beta)
    if beta_range is not None:
        low, high = beta_range
        if not 0 < low < high < math.inf:
            raise ValueError(
                "Expected beta_range=(low, high) with 0 < low < high, both finite. "
                f"Received: beta_range={tuple(beta_range)}."
            )
