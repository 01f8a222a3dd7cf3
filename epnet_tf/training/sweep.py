"""Stage two for many β at once: controllers trained side by side on cached states.

Every image's main branch runs once, whatever the number of β; and the controllers of
all β, at all exits with as many features, are one batched computation.
"""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from epnet_tf import objective
from epnet_tf.training.states import ExitStates


class ControllerSweep(keras.Model):
    """Controllers of an EPNet for several β, trained on exit states.

    The gradients are those of `ControllerTrainer` for each β alone. Compile with an
    optimizer that treats every weight by itself (SGD, Adam, AdamW), fit on
    `ExitStates.inputs` and `ExitStates.correct`, and take the controllers of one β
    into the model with `assign`.

    Args:
        model: The `EPNet`; its controllers give the architecture.
        betas: Cost sensitivities, percentage points per MAC.
        seed: Seed of the initial weights, the same for every β.
    """

    def __init__(self, model: keras.Model, betas: Sequence[float], seed: int = 0):
        super().__init__()
        self.built = True  # All variables are made here.
        self.betas = np.array(betas, "float32")
        if model.beta_range is not None or not (self.betas >= 0).all():
            raise ValueError(
                "Expected betas >= 0 and a model without beta_range. "
                f"Received: betas={list(betas)}, beta_range={model.beta_range}."
            )
        self.macs = model.exit_costs.with_controllers
        keras.utils.set_random_seed(seed)
        self.model = model
        by_channels: dict[int, list[int]] = {}
        for i in range(1, model.num_exits):
            channels = _controller(model, i).inputs[0].shape[-1]
            by_channels.setdefault(channels, []).append(i)
        self.stacks = [
            ControllerStack(i, [_controller(model, j) for j in i], len(self.betas))
            for i in by_channels.values()
        ]

    @property
    def trainable_weights(self):
        """The stacked controllers'; the model's own only give the architecture."""
        return [w for stack in self.stacks for w in stack.weight_stack]

    @property
    def trainable_variables(self):
        """As `trainable_weights`."""
        return self.trainable_weights

    def call(self, inputs, training=None):
        """Stop logits for each β: [B, b, N − 1].

        Args:
            inputs: States as `ExitStates.inputs` gives them.
            training: Whether the controllers run in training mode.
        """
        stops = {}
        for stack in self.stacks:
            stops |= dict(
                zip(stack.exits, stack(inputs, training=training), strict=True)
            )
        return ops.stack([stops[i] for i in sorted(stops)], axis=-1)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """The sum over β of minus the expected benefit, mean over the batch."""
        correct, betas = y[None], self.betas[:, None, None]
        benefits = objective.expected_benefit(y_pred, correct, self.macs, betas)
        return -ops.sum(ops.mean(benefits, axis=-1))

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """The loss alone: what counts is measured on held-out states afterwards."""
        return self.get_metrics_result()

    def assign(self, index: int):
        """Takes the controllers of one β into the model, and sets `model.beta`.

        Args:
            index: Place of the β in `betas`.
        """
        for stack in self.stacks:
            stack.assign(index, [_controller(self.model, i) for i in stack.exits])
        self.model.beta = float(self.betas[index])


def train_controllers(
    model: keras.Model,
    states: ExitStates,
    betas: Sequence[float],
    seed: int = 0,
    epochs: int = 10,
    batch_size: int = 512,
    learning_rate: float = 3e-3,
    verbose="auto",
) -> ControllerSweep:
    """Trains controllers for several β on exit states, with AdamW and cosine decay.

    Args:
        model: The `EPNet` that the states come from.
        states: States of training images.
        betas: Cost sensitivities, percentage points per MAC.
        seed: Seed of initial weights, order and dropout.
        epochs: Passes over the states.
        batch_size: Images in a batch.
        learning_rate: Highest learning rate; it has to leave the plateau of an
            expectation that starts by continuing.
        verbose: As in `keras.Model.fit`.

    Returns:
        The trained sweep; `assign` takes the controllers of one β into the model.
    """
    sweep = ControllerSweep(model, betas, seed)
    steps = epochs * -(-len(states) // batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    sweep.compile(keras.optimizers.AdamW(schedule, weight_decay=1e-2))
    sweep.fit(
        states.inputs,
        states.correct.astype("float32"),
        batch_size=batch_size,
        epochs=epochs,
        verbose=verbose,
    )
    return sweep


class ControllerStack(keras.layers.Layer):
    """Controllers of one shape: all exits with as many features, for all β.

    The variables are those of one controller with an axis [B · exits] in front; only
    the state of its random generators is shared.
    """

    def __init__(self, exits: list[int], controllers: list, num_betas: int):
        super().__init__()
        self.built = True  # All variables are made here.
        self.exits = exits
        self.num_betas = num_betas
        self.template = controllers[0]
        fresh = [keras.models.clone_model(c) for c in controllers]
        self.weight_stack = self._stack([c.trainable_variables for c in fresh])
        self.state_stack = self._stack([c.non_trainable_variables for c in fresh])

    def call(self, inputs, training=None):
        """Stop logits [B, b] of each exit."""
        count = len(self.exits)
        pooled, logits = (
            ops.stack([inputs[f"{kind}_{i:02d}"] for i in self.exits])
            for kind in ("pooled", "logits")
        )

        def one_controller(arguments):
            index, weights, states = arguments
            states = iter(states)
            states = [v if _shared(v) else next(states) for v in self.state_stack]
            stop, states = self.template.stateless_call(
                weights,
                states,
                [pooled[index % count], logits[index % count]],
                training=training,
            )
            return stop[:, 0], states

        stops, states = tf.vectorized_map(
            one_controller,
            (
                ops.arange(self.num_betas * count),
                [ops.convert_to_tensor(v) for v in self.weight_stack],
                [ops.convert_to_tensor(v) for v in self.state_stack if not _shared(v)],
            ),
        )
        if training:
            for variable, value in zip(self.state_stack, states, strict=True):
                variable.assign(value[0] if _shared(variable) else value)
        stops = ops.reshape(stops, (self.num_betas, count, -1))
        return [stops[:, i] for i in range(count)]

    def assign(self, index: int, controllers: list):
        """Takes the variables of one β into the controllers of the exits."""
        for i, controller in enumerate(controllers):
            place = index * len(self.exits) + i
            for variables, stack in (
                (controller.trainable_variables, self.weight_stack),
                (controller.non_trainable_variables, self.state_stack),
            ):
                for variable, stacked in zip(variables, stack, strict=True):
                    if not _shared(variable):
                        variable.assign(stacked[place])

    def _stack(self, variables_of_exits) -> list:
        stacks = []
        for variables in zip(*variables_of_exits, strict=True):
            first, value = variables[0], np.stack([v.numpy() for v in variables])
            value = (
                value[0]
                if _shared(first)
                else np.tile(value, [self.num_betas] + [1] * (value.ndim - 1))
            )
            stack = self.add_weight(
                value.shape, dtype=first.dtype, trainable=first.trainable
            )
            stack.assign(value)
            stacks.append(stack)
        return stacks


def _shared(variable) -> bool:
    """Whether a variable is the state of a random generator: the only integers."""
    return "int" in keras.backend.standardize_dtype(variable.dtype)


def _controller(model, exit_number):
    return model.get_layer(f"controller_{exit_number:02d}")
