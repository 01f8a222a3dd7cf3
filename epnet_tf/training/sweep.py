"""Stage two on cached states: controllers for many β, or for a range, at once.

Every image's main branch runs once, whatever the number of β; and the controllers of
all β, at all exits with as many features, are one batched computation.
"""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from epnet_tf import objective
from epnet_tf.model.states import ExitStates, StoredStates
from epnet_tf.training.controllers import check_betas, draw_betas
from epnet_tf.training.exploration import Exploration
from epnet_tf.training.stage import Stage


class ControllerSweep(Stage):
    """Controllers of an EPNet for several β, trained on exit states.

    The gradients are those of `ControllerTrainer` for each β alone. For a model with
    `beta_range` there is one set of controllers, and β is drawn for each image of each
    batch as `ControllerTrainer` draws it. Compile with an optimizer that treats every
    weight by itself (SGD, Adam, AdamW), fit on `ExitStates.inputs` and
    `ExitStates.correct`, and take the controllers into the model with `assign`.

    Args:
        model: The `EPNet`; its controllers give the architecture.
        betas: Cost sensitivities, points per unit of cost; None for a model with
            `beta_range`.
        seed: Seed of the initial weights, the same for every β, and of the β drawn.

    Raises:
        ValueError: If the model has one exit only, or β are missing, negative or
            superfluous.
    """

    def __init__(
        self, model: keras.Model, betas: Sequence[float] | None = None, seed: int = 0
    ):
        super().__init__()
        self.built = True  # All variables are made here.
        check_betas(betas, model)
        self.betas = () if betas is None else tuple(float(beta) for beta in betas)
        paid = model.exit_costs
        for beta in self.betas:
            objective.warn_of_beta(beta, paid.full, paid.unit)
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.costs = paid.with_controllers
        # Above 0 while `Exploration` is at work.
        self.temperature = self.add_weight(
            (), initializer="zeros", trainable=False, name="temperature"
        )
        keras.utils.set_random_seed(seed)
        self.model = model
        by_channels: dict[int, list[int]] = {}
        for i in range(1, model.num_exits):
            channels = _controller(model, i).inputs[0].shape[-1]
            by_channels.setdefault(channels, []).append(i)
        self.stacks = [
            ControllerStack(i, [_controller(model, j) for j in i], len(self.betas) or 1)
            for i in by_channels.values()
        ]

    @property
    def trainable_weights(self):
        """The stacked controllers'; the model's own only give the architecture."""
        return [w for stack in self.stacks for w in stack.weight_stack]

    def train_step(self, data):
        """One step, with a β drawn for each image if the controllers take β."""
        return super().train_step(self._with_betas(data))

    def test_step(self, data):
        """Loss of a batch, with a β drawn as in training."""
        return super().test_step(self._with_betas(data))

    def call(self, inputs, training=None):
        """Stop logits for each β: [B, b, N − 1].

        Args:
            inputs: States as `ExitStates.inputs` gives them; and `beta` [b, 1], if the
                controllers take β (then B is 1).
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
        """The sum over β of minus the training objective, mean over the batch."""
        betas = np.array(self.betas, "float32")[:, None, None]
        for_range = self.model.beta_range is not None
        objectives = objective.training_objective(
            y_pred,
            y[None],
            self.costs,
            x["beta"][None] if for_range else betas,
            self.temperature,
            relative=for_range,
        )
        return ops.sum(self.mean_loss(-objectives, sample_weight))

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """The loss alone: what counts is measured on held-out states afterwards."""
        return self.get_metrics_result()

    def assign(self, index: int = 0, beta: float | None = None):
        """Takes the controllers of one β into the model, and sets `model.beta`.

        Args:
            index: Place of the β in `betas`; 0, the only set, with `beta_range`.
            beta: The β itself, instead of its place.

        Raises:
            ValueError: If there are no controllers for the β.
        """
        if beta is not None:
            if beta not in self.betas:
                raise ValueError(
                    f"Expected a beta of {list(self.betas)}. Received: beta={beta}."
                )
            index = self.betas.index(beta)
        for stack in self.stacks:
            stack.assign(index, [_controller(self.model, i) for i in stack.exits])
        if self.model.beta_range is None:
            self.model.beta = self.betas[index]

    def _with_betas(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        beta_range = self.model.beta_range
        if beta_range:
            count = ops.shape(y)[0]
            x = {**x, "beta": draw_betas(count, beta_range, self.seed_generator)}
        return x, y, sample_weight


def train_controllers(
    model: keras.Model,
    states: ExitStates | StoredStates,
    betas: Sequence[float] | None = None,
    seed: int = 0,
    epochs: int = 8,
    batch_size: int = 512,
    learning_rate: float = 3e-3,
    temperature: float = 0.03,
    verbose="auto",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    sweep_class: type[ControllerSweep] = ControllerSweep,
) -> ControllerSweep:
    """Trains controllers on exit states, with AdamW, cosine decay and `Exploration`.

    Args:
        model: The `EPNet` that the states come from.
        states: States of training images; stored ones are read shard by shard.
        betas: Cost sensitivities, points per unit of cost; None for a model with
            `beta_range`, whose one set of controllers is trained for the range.
        seed: Seed of initial weights, order, dropout and the β drawn.
        epochs: Passes over the states.
        batch_size: Images in a batch.
        learning_rate: Highest learning rate; it has to leave the plateau of an
            expectation that starts by continuing.
        temperature: First temperature of `Exploration`; 0 for none.
        verbose: As in `keras.Model.fit`.
        callbacks: As in `keras.Model.fit`; their model is the sweep.
        sweep_class: The objective, if not the exact expected benefit.

    Returns:
        The trained sweep; `assign` takes the controllers of one β into the model.
    """
    sweep = sweep_class(model, betas, seed)
    steps = epochs * -(-len(states) // batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    sweep.compile(keras.optimizers.AdamW(schedule, weight_decay=1e-2))
    if isinstance(states, StoredStates):
        data = {
            "x": states.batches(batch_size, seed),
            "steps_per_epoch": steps // epochs,
            "shuffle": False,
        }
    else:
        correct = states.correct.astype("float32")
        data = {"x": states.inputs, "y": correct, "batch_size": batch_size}
    sweep.fit(
        **data,
        epochs=epochs,
        callbacks=[Exploration(temperature), *callbacks],
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
        beta = [inputs["beta"]] if "beta" in inputs else []
        pooled, logits = (
            ops.stack([inputs[f"{kind}_{i:02d}"] for i in self.exits])
            for kind in ("pooled", "logits")
        )

        def one_controller(arguments):
            index, weights, states = arguments
            states = iter(states)
            states = [
                tf.convert_to_tensor(v) if _shared(v) else next(states)
                for v in self.state_stack
            ]
            stop, states = self.template.stateless_call(
                weights,
                states,
                [pooled[index % count], logits[index % count], *beta],
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
