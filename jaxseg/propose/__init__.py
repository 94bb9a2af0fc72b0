"""Proposes masks for images without labels, those first of which a look is worth most.

    from jaxseg.inference.predictor import make_predictor
    from jaxseg.propose import rank

    runs = [jaxseg.load("runs/a"), jaxseg.load("runs/b")]
    for path, score in rank(paths, runs, make_predictor(runs), "mutual_information", number=20):
        print(path, score)

The functions of `criteria` take arrays and need no run.
"""

from jaxseg.propose.criteria import Chosen
from jaxseg.propose.proposing import ORDERS, Order, Ranked, rank

__all__ = ["ORDERS", "Chosen", "Order", "Ranked", "rank"]
