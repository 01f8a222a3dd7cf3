"""What runs on a device: bundles, segments, answers. Needs NumPy and LiteRT alone."""
