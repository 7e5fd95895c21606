"""Scheduling policies side by side, in simulated time: the gateway's planner, baselines, and a bound."""
