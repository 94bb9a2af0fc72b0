"""What is done with a trained network: load a run, score a split, segment an image of any size."""

from jaxseg.inference.score import Result, score

__all__ = ["Result", "score"]
