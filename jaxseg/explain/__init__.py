"""Explains what a trained network looks at: maps over the image for a class, a pixel or a region.

    from jaxseg.explain import explain

    explanation = explain(run, "street.png", method="grad-cam", class_name="car")
    explanation.map          # f32[h,w]
    explanation.picture()    # u8[y,x,3]

The functions of `gradients`, `grad_cam`, `attention`, `effective`, `support`, `deletion` and `randomisation` are pure:
they take a Linen module, its variables and arrays, and need no run.
"""

from jaxseg.explain.explanation import Explanation, explain, faithfulness, sanity
from jaxseg.explain.question import METHODS, Method

__all__ = ["METHODS", "Explanation", "Method", "explain", "faithfulness", "sanity"]
