"""The graph inside a .tflite model: from Keras, read, cut, compared."""
