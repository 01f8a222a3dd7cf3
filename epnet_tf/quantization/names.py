"""The names of the quantization modes, for whoever does not quantize."""

# As in `epnet_tf.quantization.modes.MODES`, which needs the quantizer.
MODES = ("none", "float16", "dynamic", "int8", "int8-full", "qat")
