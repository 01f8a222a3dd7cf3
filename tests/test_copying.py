"""A copy of an EPNet, in memory or by way of a file, is the same model."""

import keras
import numpy as np
import pytest
from keras import layers
from small_models import small_backbone, small_epnet

import epnet_tf
from epnet_tf.model import copying, graph

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 12, 12, 3)).astype("float32")
SMALL = epnet_tf.Controller(units=4, dropout=0.1)


def conv(width=4, **kwargs):
    return layers.Conv2D(width, 3, strides=2, padding="same", **kwargs)


def backbone(*first):
    """Two convolutions after some layers, of images 12×12×3."""
    keras.utils.set_random_seed(0)
    ends = [conv(activation="relu", name="one"), conv(name="two")]
    return keras.Sequential([keras.Input((12, 12, 3)), *first, *ends], name="backbone")


def epnet(*first, body=None, **kwargs):
    keras.utils.set_random_seed(0)
    body = body or backbone(*first)
    kwargs = {"exits": ["one"], "controller": SMALL, "beta": 1e-5} | kwargs
    return epnet_tf.EPNet(body, 3, **kwargs)


def adapted():
    layer = layers.Normalization(name="adapted")
    layer.adapt(IMAGES)
    return layer


def by_file(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def answers(model, images=IMAGES):
    beta = model.beta_range[0] if model.beta_range else None
    return model.predict(model.with_beta(images, beta), verbose=0)


def assert_same(model, copy, images=IMAGES):
    """Equal answers, weights and attributes, and weights of its own."""
    found, expected = answers(copy, images), answers(model, images)
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    for a, b in zip(model.weights, copy.weights, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a is not b
    for attribute in (
        *("name", "beta", "beta_range", "num_classes", "exit_layers", "trainable"),
        "image_shape",
    ):
        assert getattr(copy, attribute) == getattr(model, attribute)
    for costs in ("alone", "with_classifiers", "with_controllers"):
        a, b = (getattr(m.exit_costs, costs).tolist() for m in (model, copy))
        assert a == b


def flags(model):
    """Which layers with weights are trained, those within controllers too."""
    found = {}
    for layer in model.layers:
        inner = {f"{layer.name}/{x.name}": x for x in getattr(layer, "layers", [])}
        if isinstance(layer, graph.Renamed):
            inner = {f"{layer.name}/{layer.layer.name}": layer.layer}
        for name, part in ({layer.name: layer} | inner).items():
            if part.weights:
                found[name] = part.trainable
    return found


def trained(model):
    """Positions of the weights that are trained."""
    ids = {id(weight) for weight in model.trainable_weights}
    return [i for i, weight in enumerate(model.weights) if id(weight) in ids]


# Statistics that are no weights


def with_normalization_nested():
    inner = keras.Sequential([keras.Input((12, 12, 3)), adapted(), conv(3)])
    return epnet(inner)


class Block(layers.Layer):
    """Unregistered, with layers of its own and an adapted one among them."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scaling, self.dense = layers.Normalization(), layers.Dense(3)

    def call(self, images):
        return self.dense(self.scaling(images))


def with_normalization_in_a_layer():
    block = Block()
    block.scaling.adapt(IMAGES)
    return epnet(block, layer_macs={block.name: 1000})


NORMALIZED = {
    "in the backbone": lambda: epnet(adapted()),
    "in a nested model": with_normalization_nested,
    "in a layer": with_normalization_in_a_layer,
    "as preprocessing": lambda: epnet(preprocessing=adapted()),
    "in preprocessing": lambda: epnet(
        preprocessing=keras.Sequential([keras.Input((12, 12, 3)), adapted()])
    ),
    "renamed": lambda: epnet(adapted(), preprocessing=adapted()),
}


@pytest.mark.parametrize("place", NORMALIZED)
def test_adapted_statistics_are_copied(place):
    model = NORMALIZED[place]()
    first = answers(model)["logits_02"]
    assert_same(model, model.copy())
    twin = model.with_new_controllers()
    np.testing.assert_array_equal(answers(twin)["logits_02"], first)


@pytest.mark.parametrize("place", set(NORMALIZED) - {"in a layer"})
def test_adapted_statistics_are_saved(place, tmp_path):
    model = NORMALIZED[place]()
    assert_same(model, by_file(model, tmp_path))


# Flags


def frozen_models():
    def layer():
        model = epnet()
        model.get_layer("one").trainable = False
        return model

    def body():
        whole = backbone()
        model = epnet(body=whole)
        whole.trainable = False
        return model

    def freed():
        whole = backbone()
        whole.trainable = False
        model = epnet(body=whole)
        whole.trainable = True
        return model

    def nested():
        inner = keras.Sequential([keras.Input((12, 12, 3)), conv(), conv(3)])
        model = epnet(inner)
        inner.layers[1].trainable = False
        return model

    def renamed():
        inner = conv(name="logits_01")
        model = epnet(inner)
        inner.trainable = False
        return model

    def heads():
        model = epnet()
        model.get_layer("logits_01").trainable = False
        model.get_layer("controller_01").get_layer("hidden").trainable = False
        return model

    def controller():
        model = epnet()
        model.get_layer("controller_01").trainable = False
        return model

    def preprocessing():
        scaling = layers.BatchNormalization()
        model = epnet(preprocessing=scaling)
        scaling.trainable = False
        return model

    def everything():
        model = epnet()
        model.trainable = False
        return model

    return [
        *(layer, body, freed, nested, renamed, heads, controller, preprocessing),
        everything,
    ]


@pytest.mark.parametrize("make", frozen_models(), ids=lambda f: f.__name__)
def test_what_is_not_trained_stays_so(make, tmp_path):
    model = make()
    if make.__name__ == "freed":
        assert all(flags(model).values())
    else:
        assert not all(flags(model).values())
    for copy in (model.copy(), by_file(model, tmp_path)):
        assert flags(copy) == flags(model)
        assert trained(copy) == trained(model)
        assert_same(model, copy)
    heads = {"controller_01": True, "controller_01/hidden": True}
    expected = {
        k: heads.get(k, True if k.startswith("controller") else v)
        for k, v in flags(model).items()
    }
    if make.__name__ != "everything":  # Whose new controllers are not trained either.
        assert flags(model.with_new_controllers()) == expected


def test_the_copys_flags_are_its_own():
    model = epnet()
    model.copy().trainable = False
    assert all(flags(model).values())


# Layers that Keras could not load


class Gain(layers.Layer):
    """Unregistered, with a weight."""

    def build(self, shape):
        self.gain = self.add_weight((shape[-1],), initializer="ones", name="gain")

    def call(self, images):
        return images * self.gain


class Scale(layers.Layer):
    """Unregistered, without weights."""

    def call(self, images):
        return images / 255.0


class Halves(keras.initializers.Initializer):
    """Unregistered."""

    def __call__(self, shape, dtype=None):
        return keras.ops.full(shape, 0.5, dtype)


def leaky(x):
    return keras.ops.maximum(x, 0.2 * x)


@pytest.mark.parametrize(
    "make",
    [
        Scale,
        Gain,
        lambda: conv(3, activation=leaky),
        # With a name of this module, which Keras would not find again.
        lambda: conv(3, activation=lambda x: leaky(x) + 1.0),
        lambda: conv(3, kernel_initializer=Halves()),
    ],
)
def test_unregistered_layers_are_copied(make):
    for model in (epnet(make()), epnet(preprocessing=make())):
        for layer in model.layers:
            layer.set_weights([w + 0.25 for w in layer.get_weights()])
        assert_same(model, model.copy())


def test_a_functional_subclass_is_copied_and_saved(tmp_path):
    class Body(keras.Model):
        def __init__(self):
            image = keras.Input((12, 12, 3))
            super().__init__(image, conv()(conv(activation="relu")(image)))

        def get_config(self):
            raise NotImplementedError

    model = epnet(body=Body(), exits=2)
    assert model.num_exits == 2
    assert_same(model, model.copy())
    assert_same(model, by_file(model, tmp_path))


def test_a_layer_that_cannot_be_made_again():
    class Odd(Gain):
        def __init__(self, secret, **kwargs):
            super().__init__(**kwargs)
            self.secret = secret

        def get_config(self):
            return {"name": self.name}

    model = epnet(Odd(secret=object(), name="odd"))
    with pytest.raises(ValueError, match="Received: layer 'odd' of type Odd"):
        model.copy()


# All else


def test_a_copy_has_weights_of_its_own():
    model = epnet(layers.BatchNormalization())
    before = [w.copy() for w in model.get_weights()]
    copy = model.copy()
    copy.set_weights([w + 1 for w in copy.get_weights()])
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_copy_for_a_range_of_beta():
    model = epnet(beta=None, beta_range=(1e-6, 1e-4))
    assert_same(model, model.copy())


def test_new_controllers_take_the_place_of_the_old():
    model = epnet()
    twin = model.with_new_controllers(epnet_tf.PaperController((5,), (4, 1)))
    assert twin.beta is None and twin.exit_layers == model.exit_layers
    assert twin.get_config()["controller"]["class_name"] == "PaperController"
    again = model.with_new_controllers(beta_range=(1e-6, 1e-5))
    assert again.get_layer("controller_01").get_layer("hidden").units == 4
    for other in (twin, again):
        for name in ("logits_01", "logits_02"):
            np.testing.assert_array_equal(answers(other)[name], answers(model)[name])


@pytest.mark.parametrize("place", ["in the backbone", "as preprocessing"])
def test_new_classifiers_take_the_place_of_the_old(place):
    model = NORMALIZED[place]()
    twin = model.with_new_classifiers(epnet_tf.PaperClassifier())
    assert twin.beta is None and twin.exit_layers == model.exit_layers
    assert twin.get_config()["classifier"]["class_name"] == "PaperClassifier"
    assert twin.get_layer("controller_01").get_layer("hidden").units == 4
    first, last = (
        [answers(m)[name] for m in (model, twin)] for name in ("logits_01", "logits_02")
    )
    np.testing.assert_array_equal(*last)
    assert not np.array_equal(*first)
    again = model.with_new_classifiers()
    assert again.get_config()["classifier"] == model.get_config()["classifier"]
    assert not np.array_equal(answers(again)["logits_01"], first[0])


def test_new_classifiers_of_early_exits_are_trained_whatever_the_old_were():
    model = epnet()
    for name in ("logits_01", "logits_02", "one"):
        model.get_layer(name).trainable = False
    twin = model.with_new_classifiers()
    assert flags(twin) == flags(model) | {"logits_01": True}


def test_costs_that_the_user_gave_are_copied():
    odd = layers.EinsumDense("abcd,de->abce", (12, 12, 3), name="odd")
    model = epnet(odd, layer_macs={"odd": 720})
    assert_same(model, model.copy())


def test_precision_is_the_models_not_the_processes(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = epnet(layers.Rescaling(1 / 255))
        expected = answers(model)
    finally:
        keras.config.set_dtype_policy("float32")
    for copy in (model.copy(), by_file(model, tmp_path)):
        for layer in model.layers:
            # Inputs and models have a policy but no say in it.
            if not isinstance(layer, (layers.InputLayer, keras.Model)):
                assert copy.get_layer(layer.name).compute_dtype == layer.compute_dtype
        for name, value in answers(copy).items():
            np.testing.assert_array_equal(value, expected[name])


def test_a_saved_copy_of_a_copy(tmp_path):
    model = with_normalization_nested()
    assert_same(model, by_file(model.copy().copy(), tmp_path))


def test_a_file_of_an_earlier_version(tmp_path):
    """Its backbone as it was given, exits by name, and no flags of heads."""
    body = keras.Sequential(
        [keras.Input((12, 12, 3)), backbone(adapted()), conv(name="end")]
    )
    model = epnet(body=body)
    config = model.get_config() | {
        "backbone": keras.saving.serialize_keras_object(body)
    }
    for key in ("trainable", "frozen_heads"):
        del config[key]
    old = epnet_tf.EPNet.from_config(config)
    copying.copy_state(model, old)
    assert_same(model, old)


def test_clone_model_is_refused():
    """Where Keras has changed so that this fails: `EPNet._run_through_graph`."""
    with pytest.raises(ValueError, match="Received: 'epnet' in keras"):
        keras.models.clone_model(small_epnet())


def test_a_clone_of_a_model_shares_what_has_no_weights():
    body = small_backbone()
    clone = copying.clone(body)
    for a, b in zip(body.layers[1:], clone.layers[1:], strict=True):
        assert (a is b) == (not a.weights), a.name
