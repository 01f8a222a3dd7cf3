"""What train.py and evaluate.py conduct: configuration, stages, cases, studies."""
