"""Controllers: from what an exit sees and says, whether to stop there (4.1.3)."""

import dataclasses
import math

import keras
from keras import layers, ops

# The probability of stopping at first, about 5%: every exit is reached and gets
# gradient. From ½, one image in 2^7 would get to exit 8, and training stalls there.
CONTINUE_BIAS = -3.0


@keras.saving.register_keras_serializable("epnet_tf")
class ConfidenceFeatures(layers.Layer):
    """How sure a classifier is: what a dense layer does not learn from logits alone.

    Takes logits [b, classes]; gives float [b, 5]: log p₁ and log p₂ of the two most
    probable classes, log(1 − p₁), the entropy, and Σ p². Uses only operations that
    TensorFlow Lite delegates (no sorting, no top-k).
    """

    def call(self, inputs):
        """Features [b, 5] of logits [b, classes]."""
        log_p, p, log_first, second, rest = _ranked(inputs)
        # Rounding alone makes a probability zero; the logarithm stays finite.
        floor = 1e-10
        return ops.concatenate(
            [
                log_first,
                ops.log(second + floor),
                ops.log(rest + floor),
                -ops.sum(p * log_p, axis=-1, keepdims=True),
                ops.sum(p * p, axis=-1, keepdims=True),
            ],
            axis=-1,
        )

    def compute_output_shape(self, input_shape):
        """[b, 5]."""
        return (*input_shape[:-1], 5)


def _ranked(logits):
    """The first and what is beside it, in operations that TensorFlow Lite delegates.

    Returns:
        log p and p, [b, classes]; log p₁, p₂ and 1 − p₁, [b, 1]. The last is summed up
        from the others, so that 1e-9 differs from 1e-12.
    """
    log_p = ops.log_softmax(logits)
    p = ops.exp(log_p)
    log_first = ops.max(log_p, axis=-1, keepdims=True)
    is_first = log_p >= log_first
    others = ops.where(is_first, 0.0, p)
    # Of several equal largest, which coarse logits have often, one is the first.
    firsts = ops.sum(ops.where(is_first, 1.0, 0.0), axis=-1, keepdims=True)
    ties, first = firsts - 1.0, ops.exp(log_first)
    second = ops.maximum(
        ops.max(others, axis=-1, keepdims=True), ops.minimum(ties, 1.0) * first
    )
    rest = ops.sum(others, axis=-1, keepdims=True) + ties * first
    return log_p, p, log_first, second, rest


@keras.saving.register_keras_serializable("epnet_tf")
class LackOfConfidence(layers.Layer):
    """1 − p₁, what the most probable class lacks: logits [b, classes] to [b, 1]."""

    def call(self, inputs):
        """Lack [b, 1] of logits [b, classes]."""
        return _ranked(inputs)[-1]

    def compute_output_shape(self, input_shape):
        """[b, 1]."""
        return (*input_shape[:-1], 1)


@keras.saving.register_keras_serializable("epnet_tf")
class StopBelow(layers.Layer):
    """A limit less its input [b, 1]: above 0 where the input is below the limit.

    The limit is no trainable weight; until it is set it is 0, which nothing is below.
    """

    def build(self, input_shape):
        """Makes the limit."""
        self.limit = self.add_weight(
            (1,), initializer="zeros", trainable=False, name="limit"
        )

    def call(self, inputs):
        """Stop values [b, 1]."""
        return self.limit - inputs

    def compute_output_shape(self, input_shape):
        """As the input's."""
        return input_shape


@keras.saving.register_keras_serializable("epnet_tf")
class ScaledLogBeta(layers.Layer):
    """β on a logarithmic scale: −1 at the low end of its range, 1 at the high end.

    Args:
        beta_range: Lowest and highest cost sensitivity, points per unit of cost.
    """

    def __init__(self, beta_range, **kwargs):
        super().__init__(**kwargs)
        self.beta_range = tuple(float(beta) for beta in beta_range)

    def call(self, inputs):
        """β [b, 1] to its place in the range [b, 1], −1 to 1."""
        low, high = (math.log(beta) for beta in self.beta_range)
        return (2.0 * ops.log(inputs) - (low + high)) / (high - low)

    def compute_output_shape(self, input_shape):
        """As the input's."""
        return input_shape

    def get_config(self):
        """The constructor's arguments."""
        return super().get_config() | {"beta_range": self.beta_range}


class Recipe:
    """A frozen dataclass that says how heads are built, and is saved as it is."""

    def get_config(self):
        """The arguments, for saving."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config):
        """Makes the recipe from `get_config`'s answer."""
        return cls(**config)


@keras.saving.register_keras_serializable("epnet_tf")
@dataclasses.dataclass(frozen=True)
class Controller(Recipe):
    """Our controller: one hidden layer on confidence, logits and pooled features.

    The features tell how hard the image is, the confidence whether this exit has it;
    both are needed. Where there are a thousand of them, `summary` keeps controllers
    small: they are first summed up in a few numbers, and logits that outnumber the
    features are left out.

    Args:
        units: Units of the hidden layer.
        dropout: Share of the hidden units dropped while training.
        summary: Numbers that sum up logits and features; None lets the hidden layer
            read all of them.
    """

    units: int = 64
    dropout: float = 0.2
    summary: int | None = None

    def build(self, name: str, channels: int, num_classes: int, beta_range=None):
        """Makes the controller of one exit.

        Args:
            name: Name of the model.
            channels: Number of pooled features m_i.
            num_classes: Number of logits y_i.
            beta_range: If given, a third input takes β in this range.

        Returns:
            A functional model: pooled features [b, channels], logits [b, classes]
            (and β [b, 1]) to a stop logit [b, 1].
        """
        inputs = _inputs(channels, num_classes, beta_range)
        pooled, logits = inputs[:2]
        confidence = ConfidenceFeatures(name="confidence", dtype="float32")(logits)
        if self.summary is None:
            x = _concatenated([confidence, logits, pooled], "state")
            x = _scaled(x, "scaling")
        else:
            x = pooled
            if num_classes <= channels:
                x = _concatenated([logits, pooled], "state")
            x = _scaled(x, "scaling")
            x = _float32(layers.Dense, self.summary, name="summary")(x)
            confidence = _scaled(confidence, "confidence_scaling")
            x = _concatenated([confidence, x], "confidence_and_summary")
        if beta_range:
            x = _with_beta(x, inputs[2], beta_range)
        x = _float32(layers.Dense, self.units, activation="relu", name="hidden")(x)
        x = _float32(layers.Dropout, self.dropout, name="dropout")(x)
        return keras.Model(inputs, _stop(x), name=name)


@keras.saving.register_keras_serializable("epnet_tf")
@dataclasses.dataclass(frozen=True)
class PaperController(Recipe):
    """The paper's controller: f_cat on [f_in(m_i), y_i], blocks of FC-BN-ReLU (4.1.3).

    Args:
        f_in: Units of the layers on the pooled features; empty leaves them out
            (Table 2, configuration 4).
        f_cat: Units of the layers on f_in's output and the logits; the last is 1.
    """

    f_in: tuple[int, ...] = (10, 10, 10)
    f_cat: tuple[int, ...] = (10, 1)

    def __post_init__(self):
        object.__setattr__(self, "f_in", tuple(self.f_in))
        object.__setattr__(self, "f_cat", tuple(self.f_cat))
        if self.f_cat[-1:] != (1,):
            raise ValueError(
                "Expected f_cat to end in 1, the stop logit. "
                f"Received: f_cat={self.f_cat}."
            )

    def build(self, name: str, channels: int, num_classes: int, beta_range=None):
        """Makes the controller of one exit; see `Controller.build`."""
        inputs = _inputs(channels, num_classes, beta_range)
        x, logits = inputs[:2]
        for i, units in enumerate(self.f_in, start=1):
            x = _fc_bn_relu(x, units, f"f_in_{i}")
        parts = [x, logits] if self.f_in else [logits]
        if beta_range:
            scaled = _float32(ScaledLogBeta, beta_range, name="beta_scaling")
            parts.append(scaled(inputs[2]))
        x = _float32(layers.Concatenate, name="state")(parts) if parts[1:] else logits
        for i, units in enumerate(self.f_cat[:-1], start=1):
            x = _fc_bn_relu(x, units, f"f_cat_{i}")
        return keras.Model(inputs, _stop(x), name=name)


@keras.saving.register_keras_serializable("epnet_tf")
@dataclasses.dataclass(frozen=True)
class ConfidenceThreshold(Recipe):
    """No controller: an exit stops what its classifier is sure enough of.

    Its stop value is the largest softmax probability less a threshold, computed as
    (1 − threshold) − (1 − probability), since float32 has no 1 − 1e-9. There is nothing
    to train; `EPNet.with_thresholds` sets the thresholds.
    """

    def build(self, name: str, channels: int, num_classes: int, beta_range=None):
        """Makes what decides at one exit; see `Controller.build`.

        Raises:
            ValueError: If there is a range of β, which thresholds know nothing of.
        """
        if beta_range:
            raise ValueError(
                "Expected thresholds for one beta. Received: "
                f"beta_range={tuple(beta_range)}."
            )
        inputs = _inputs(channels, num_classes, None)
        lack = _float32(LackOfConfidence, name="lack")(inputs[1])
        return keras.Model(inputs, _float32(StopBelow, name="stop")(lack), name=name)


def _float32(layer_class, *args, **kwargs):
    """A layer of a head: in float32 in every precision, as confidences need it."""
    return layer_class(*args, dtype="float32", **kwargs)


def _concatenated(parts, name):
    return _float32(layers.Concatenate, name=name)(parts)


def _scaled(x, name):
    """Scaled alike: states of different exits and networks differ by orders."""
    normalization = _float32(
        layers.BatchNormalization, momentum=0.9, center=False, scale=False, name=name
    )
    return normalization(x)


def _inputs(channels, num_classes, beta_range):
    inputs = [
        keras.Input([channels], name="pooled", dtype="float32"),
        keras.Input([num_classes], name="logits", dtype="float32"),
    ]
    if beta_range:
        inputs.append(keras.Input([1], name="beta", dtype="float32"))
    return inputs


def _fc_bn_relu(x, units, name):
    x = _float32(
        layers.Dense, units, kernel_initializer="he_normal", name=f"{name}_fc"
    )(x)
    x = _float32(layers.BatchNormalization, momentum=0.9, name=f"{name}_bn")(x)
    return _float32(layers.ReLU, name=f"{name}_relu")(x)


def _with_beta(x, beta, beta_range):
    log_beta = _float32(ScaledLogBeta, beta_range, name="beta_scaling")(beta)
    return _float32(layers.Concatenate, name="state_and_beta")([x, log_beta])


def _stop(x):
    return _float32(
        layers.Dense,
        1,
        bias_initializer=keras.initializers.Constant(CONTINUE_BIAS),
        name="stop",
    )(x)
