"""PyTorch's old files are read without running what they ask for."""

import collections
import pathlib
import pickle
import sys
import types

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import efficientnet_lite0  # noqa: E402


@pytest.fixture
def torch(monkeypatch):
    """Names as PyTorch has them, for pickle to write."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2():
        pass

    class FloatStorage:
        pass

    for thing, module in ((_rebuild_tensor_v2, utils), (FloatStorage, torch)):
        name = thing.__name__
        thing.__module__, thing.__qualname__ = module.__name__, name
        setattr(module, name, thing)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return types.SimpleNamespace(rebuild=_rebuild_tensor_v2, storage=FloatStorage)


class Call:
    """Something that a pickle asks to be called."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Storage:
    def __init__(self, kind, key, count):
        self.id = "storage", kind, key, "cpu", count, None


class Writer(pickle.Pickler):
    def persistent_id(self, thing):
        return thing.id if isinstance(thing, Storage) else None


def write(file, tensors, storages):
    """A file as `torch.save` wrote it before version 1.6."""
    with open(file, "wb") as stream:
        header = efficientnet_lite0._MAGIC, efficientnet_lite0._PROTOCOL
        for thing in (*header, {"little_endian": True}):
            pickle.dump(thing, stream, 2)
        Writer(stream, 2).dump(tensors)
        pickle.dump(list(storages), stream, 2)
        for numbers in storages.values():
            stream.write(np.int64(len(numbers)).tobytes() + numbers.tobytes())
    return file


def test_tensors_are_views_of_storages(torch, tmp_path):
    numbers = np.arange(12, dtype="float32")
    storage = Storage(torch.storage, "7", 12)

    def tensor(offset, shape, strides):
        return Call(torch.rebuild, storage, offset, shape, strides, False, {})

    tensors = collections.OrderedDict(
        rows=tensor(0, (3, 4), (4, 1)),
        columns=tensor(0, (4, 3), (1, 4)),
        rest=tensor(10, (2,), (1,)),
        one=tensor(5, (), ()),
    )
    found = efficientnet_lite0.read_pth(
        write(tmp_path / "a.pth", tensors, {"7": numbers})
    )
    np.testing.assert_array_equal(found["rows"], numbers.reshape(3, 4))
    np.testing.assert_array_equal(found["columns"], numbers.reshape(3, 4).T)
    assert found["rest"].tolist() == [10.0, 11.0] and found["one"] == 5.0
    outside = {"outside": tensor(9, (2, 2), (2, 1))}
    with pytest.raises(ValueError, match="does not fit into 12 numbers"):
        efficientnet_lite0.read_pth(write(tmp_path / "b.pth", outside, {"7": numbers}))


def test_nothing_else_is_called(tmp_path):
    file = tmp_path / "evil.pth"
    proof = tmp_path / "proof"
    write(file, {"weight": Call(pathlib.Path.touch, proof)}, {})
    with pytest.raises(ValueError, match=r"Expected a state_dict.*asks for"):
        efficientnet_lite0.read_pth(file)
    assert not proof.exists()
    file.write_bytes(b"PK\3\4 a newer file")
    with pytest.raises(ValueError, match="Expected a state_dict"):
        efficientnet_lite0.read_pth(file)


@pytest.fixture(scope="module")
def network():
    return efficientnet_lite0.efficientnet_lite0((32, 32, 3), include_top=True)


def test_the_network_has_the_published_number_of_weights(network):
    trainable = sum(int(np.prod(w.shape)) for w in network.trainable_weights)
    assert trainable == 4_652_008
    assert network.get_layer("block_14_add").output.shape[1:] == (1, 1, 192)


def test_every_layer_is_given_its_tensor(network):
    axes = {"Conv2D": (3, 2, 0, 1), "DepthwiseConv2D": (2, 3, 0, 1), "Dense": (1, 0)}
    suffixes = "weight", "bias", "running_mean", "running_var"
    tensors = {}
    for number, layer in enumerate(layer for layer in network.layers if layer.weights):
        for name, weight in zip(suffixes, layer.weights, strict=False):
            value = np.full(weight.shape, number + suffixes.index(name) / 10, "float32")
            if name == "weight" and type(layer).__name__ in axes:
                value = value.transpose(axes[type(layer).__name__])
            tensors[f"{efficientnet_lite0._source(layer.name)}.{name}"] = value
    assert "_blocks.3._depthwise_conv.weight" in tensors and "_fc.bias" in tensors
    efficientnet_lite0._assign(network, tensors)
    for number, layer in enumerate(layer for layer in network.layers if layer.weights):
        for i, weight in enumerate(layer.get_weights()):
            np.testing.assert_allclose(weight, number + i / 10, rtol=1e-6)
    del tensors["_bn1.bias"]
    with pytest.raises(ValueError, match=r"no tensor _bn1\.bias"):
        efficientnet_lite0._assign(network, tensors)
