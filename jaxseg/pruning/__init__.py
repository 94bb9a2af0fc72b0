"""Smaller networks from large ones: single weights pruned by magnitude in training, and whole channels removed."""
