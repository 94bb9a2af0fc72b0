"""Trackers of experiments: services that keep the numbers of many runs, each through its own client."""
