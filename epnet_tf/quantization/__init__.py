"""From float32 to int8: modes, recipes, ranges, refit, fine-tuning."""
