"""A .tflite model that stops by itself, in Python: NumPy and ai-edge-litert alone.

    python classify.py MODEL IMAGES [BETA [MAX_EXIT]]

IMAGES holds raw pixels, one byte each, one image after another. Prints for each image
the exit that answered, counted from 1, the label and the logits.
"""

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter

if len(sys.argv) < 3:
    sys.exit("usage: python classify.py MODEL IMAGES [BETA [MAX_EXIT]]")
model, images, *numbers = sys.argv[1:]
signature = "max_exit" if len(numbers) > 1 else "serving_default"
beta, max_exit = [*numbers, 0, 0][:2]

run = Interpreter(model, num_threads=1).get_signature_runner(signature)
inputs = run.get_input_details()
given = {"beta": np.float32([[float(beta)]]), "max_exit": np.int32([int(max_exit)])}
given = {name: value for name, value in given.items() if name in inputs}

shape, dtype = inputs["image"]["shape"], inputs["image"]["dtype"]
pixels = np.fromfile(images, np.uint8)
if pixels.size % shape.prod():
    sys.exit(
        f"Expected raw pixels, {shape.prod()} bytes for each image. "
        f"Received: {images}, {pixels.size} bytes."
    )
for image in pixels.reshape(-1, *shape):
    answer = run(image=image.astype(dtype), **given)
    exit_number, logits = answer["exit"][0], answer["logits"][0]
    print(exit_number, logits.argmax(), *logits)
