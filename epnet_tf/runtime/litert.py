"""LiteRT: running .tflite models, their tensors bound by name."""

import ctypes
import functools
import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter


class LiteRTModel:
    """A .tflite model with static shapes, ready to run, its tensors bound by name.

    Runs on XNNPACK, the interpreter's default on CPUs.

    Usage:

    ```python
    np.copyto(model.inputs["image"], image)
    model.invoke()
    logits = model.outputs["logits_12"].copy()
    ```

    Args:
        content: The model; `serving_default` is the signature that is bound.
        num_threads: Threads that one call may use.
        keep_tensors: Whether memory that is not in use is kept. A model with control
            flow is a sixth faster then: else LiteRT 2 releases a branch's memory after
            every run, and prepares all its operators anew.

    Attributes:
        inputs: The memory of each input, by name, to write to.
        outputs: The memory of each output, by name, to read from.
        invoke: Runs the model once.
    """

    def __init__(
        self, content: bytes, num_threads: int = 1, keep_tensors: bool = False
    ):
        with warnings.catch_warnings():
            # That it takes memory.
            warnings.simplefilter("ignore")
            self._interpreter = Interpreter(
                model_content=content,
                num_threads=num_threads,
                experimental_preserve_all_tensors=keep_tensors,
            )
        self._interpreter.allocate_tensors()
        self._signatures: dict[str, Callable] = {}
        signature = self._interpreter.get_signature_runner("serving_default")
        self.inputs = self._memory(signature.get_input_details())
        self.outputs = self._memory(signature.get_output_details())
        # Not the interpreter's own `invoke`: that looks, in Python, for views that are
        # in the way, which ours are not, and threads with other models wait meanwhile.
        self.invoke = functools.partial(self._interpreter._interpreter.Invoke)
        # What it runs in belongs to the interpreter.
        vars(self.invoke)["interpreter"] = self._interpreter

    def run(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Runs the model once.

        Args:
            **inputs: A value for every input.

        Returns:
            A copy of every output, by name.
        """
        for name, memory in self.inputs.items():
            np.copyto(memory, inputs[name])
        self.invoke()
        return {name: memory.copy() for name, memory in self.outputs.items()}

    def run_signature(self, key: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Runs another signature of the model once.

        Args:
            key: The signature's key.
            **inputs: A value for every input.

        Returns:
            A copy of every output, by name.
        """
        if key not in self._signatures:
            self._signatures[key] = self._interpreter.get_signature_runner(key)
        return self._signatures[key](**inputs)

    def _memory(self, tensors: dict[str, dict]) -> dict[str, np.ndarray]:
        return {
            name: _lasting_view(self._interpreter.tensor(tensor["index"])())
            for name, tensor in tensors.items()
        }


def as_input(images: np.ndarray, dtype: npt.DTypeLike) -> np.ndarray:
    """Raw pixels in the type that a model takes; for bytes, fractions are rounded.

    Args:
        images: One image or several, values 0 to 255.
        dtype: The type of the model's input.

    Returns:
        An array of that type, contiguous.
    """
    images = np.asarray(images)
    if images.dtype.kind == "f" and np.dtype(dtype).kind == "u":
        images = np.rint(images)
    return np.ascontiguousarray(images, dtype)


def _lasting_view(tensor: np.ndarray) -> np.ndarray:
    """A view of a tensor that may be kept while the interpreter runs.

    The interpreter refuses to run while one of its own views is alive, because their
    memory moves when shapes change; here, shapes are static. Making views, or copies,
    anew for every image takes longer than small segments do.
    """
    address = tensor.__array_interface__["data"][0]
    memory = (ctypes.c_byte * tensor.nbytes).from_address(address)
    return np.frombuffer(memoryview(memory), tensor.dtype).reshape(tensor.shape)
