"""From a backbone to a graph with exits: where they go, and the heads on them."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import keras

from epnet_tf.model import classifiers, graph, main_branch
from epnet_tf.model.classifiers import BranchClassifier, PaperClassifier
from epnet_tf.model.cost import model_macs
from epnet_tf.model.exits import Exit, place_exits
from epnet_tf.model.heads import ConfidenceThreshold, Controller, PaperController

# What the layers of each exit are called; a user's layer of such a name is renamed.
_HEADS = (*classifiers.LAYERS, "controller")


@dataclasses.dataclass(frozen=True)
class Heads:
    """How the heads of a model are built.

    Attributes:
        num_classes: Number of classes.
        classifier: How branch classifiers are built; the last exit has the paper's.
        controller: How controllers are built.
        beta_range: The range of β that controllers take, if they do.
    """

    num_classes: int
    classifier: BranchClassifier | PaperClassifier
    controller: Controller | PaperController | ConfidenceThreshold
    beta_range: tuple[float, float] | None

    def macs(self, shape: tuple[int, ...]) -> int:
        """Multiply-adds of a head that reads a feature map [h, w, c]."""
        feature_map = keras.Input(shape)
        statistics, logits = self.classifier.build(feature_map, 0, self.num_classes)
        head = keras.Model(feature_map, logits)
        stop = self._controller(0, statistics.shape[-1])
        return sum((model_macs(head) | model_macs(stop)).values())

    def build(
        self, places: Sequence[Exit], beta: Sequence[keras.KerasTensor]
    ) -> dict[str, keras.KerasTensor]:
        """Puts a head on every exit.

        Args:
            places: The exits, the last one of which gets no controller.
            beta: The input for β, of controllers that take it; else empty.

        Returns:
            `logits_01` … [b, classes], then `stop_01` … [b, 1], one less.
        """
        answers, stops = {}, {}
        for i, place in enumerate(places, start=1):
            is_last = i == len(places)
            kind = PaperClassifier() if is_last else self.classifier
            pooled, logits = kind.build(place.features, i, self.num_classes)
            answers[f"logits_{i:02d}"] = logits
            if not is_last:
                head = self._controller(i, pooled.shape[-1])
                stops[f"stop_{i:02d}"] = head([pooled, logits, *beta])
        return answers | stops

    def _controller(self, number: int, channels: int) -> keras.Model:
        return self.controller.build(
            f"controller_{number:02d}", channels, self.num_classes, self.beta_range
        )


@dataclasses.dataclass(frozen=True)
class Assembly:
    """A graph with exits, and what it was made of.

    Attributes:
        inputs: The images; with a range of β the dict `image`, `beta`.
        outputs: As `Heads.build` gives them.
        places: The exits; the last one is the network itself.
        start: Where the main branch begins: the images, preprocessed.
        end: Where the backbone ends, its classifier included.
        classifier: What the backbone ended in, if that was a classifier.
        heads: How the heads were built.
        preprocessing: What raw images go through before the backbone.
        layer_macs: MACs of layers that cannot be counted, by layer name.
        input_shape: Height, width and channels of the backbone's images.
        name: The backbone's name.
    """

    inputs: dict | keras.KerasTensor
    outputs: dict[str, keras.KerasTensor]
    places: tuple[Exit, ...]
    start: keras.KerasTensor
    end: keras.KerasTensor
    classifier: main_branch.Classifier | None
    heads: Heads
    preprocessing: keras.layers.Layer | None
    layer_macs: dict[str, int] | None
    input_shape: tuple[int, int, int]
    name: str

    @functools.cached_property
    def backbone(self) -> keras.Model:
        """The backbone with all models nested in it laid open, names being unique."""
        image = keras.Input(self.input_shape, name="image")
        return graph.part(self.start, self.end, image, self.name)

    @property
    def features(self) -> tuple[keras.KerasTensor, ...]:
        """What the exits read of the backbone, the last one's included."""
        return tuple(place.features for place in self.places)

    @property
    def ends_in_classifier(self) -> bool:
        """Whether the last exit's classifier is the backbone's own."""
        return self.classifier is not None


def assemble(
    backbone: keras.Model,
    heads: Heads,
    exits: int | Sequence[str] | None,
    preprocessing: keras.layers.Layer | None,
    layer_macs: Mapping[str, int] | None,
) -> Assembly:
    """Puts exits into a backbone, with every model nested in it laid open.

    Args:
        backbone: As in `EPNet`; its layers' weights are shared.
        heads: How heads are built.
        exits: As in `EPNet`.
        preprocessing: Applied to the raw images; None for nothing.
        layer_macs: MACs of layers that cannot be counted, by layer name.

    Returns:
        The `Assembly`.

    Raises:
        ValueError: If backbone or exits are not as `EPNet` says.
    """
    start = image = keras.Input(backbone.input_shape[1:], name="image")
    taken = _own_names(backbone, exits, heads.beta_range)
    if preprocessing is not None:
        scaling = graph.rename(preprocessing, taken)
        taken, start = taken | {scaling.name}, scaling(image)
    (end,) = graph.inline(backbone, start, taken)
    features, classifier = main_branch.split_classifier(end, heads.num_classes)
    head_macs = functools.cache(heads.macs)
    places = place_exits(
        features,
        exits,
        head_cost=lambda tensor: head_macs(tensor.shape[1:]),
        classifier_macs=features.shape[-1] * heads.num_classes,
        layer_macs=layer_macs,
    )
    places.append(Exit(graph.producer(features).operation.name, features))
    inputs: dict | keras.KerasTensor = image
    beta = []
    if heads.beta_range:
        inputs = {"image": image, "beta": keras.Input([1], name="beta")}
        beta = [inputs["beta"]]
    return Assembly(
        inputs,
        heads.build(places, beta),
        tuple(places),
        start,
        end,
        classifier,
        heads,
        preprocessing,
        dict(layer_macs) if layer_macs else None,
        backbone.input_shape[1:],
        backbone.name,
    )


def _own_names(backbone, exits, beta_range) -> set[str]:
    """The names that an EPNet's own layers may get."""
    if exits is None:
        count = sum(1 for _ in graph.operations(backbone))
    else:
        count = len(exits) if isinstance(exits, Sequence) else exits
    numbers = range(1, int(count) + 2)
    names = {f"{kind}_{i:02d}" for kind in _HEADS for i in numbers}
    return names | ({"image", "beta"} if beta_range else {"image"})
