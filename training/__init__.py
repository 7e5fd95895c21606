"""Trains the networks: pictures, degradation, recipes, the trainer. Writes `weights/`."""
