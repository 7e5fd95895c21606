"""Measures the networks and the service."""
