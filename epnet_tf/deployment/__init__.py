"""From a Keras model to segments that stop early: convert, slice, bundle, run."""
