"""Writes a trained network to one file that runs without jaxseg: StableHLO for JAX, ONNX for everything else.

    from jaxseg.export import export_run

    export_run(jaxseg.load("runs/camvid"), "camvid.stablehlo")

The file holds the whole path from an image of any size to its classes. `python -m jaxseg.export` does the same.
"""

from jaxseg.export.writing import FORMATS, Exported, export_run

__all__ = ["FORMATS", "Exported", "export_run"]
