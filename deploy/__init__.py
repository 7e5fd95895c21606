"""Runs the service: the embedded Triton, and everything around the gateway."""
