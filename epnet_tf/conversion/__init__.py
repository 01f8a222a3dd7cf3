"""From a trained EPNet to a bundle: converted, measured, reported, timed."""
