"""Do residual shortcuts help a deep network, and which of them?

    python -m jaxseg.sweep --config experiments/ablations/residual.py

One ResUNet of 60 3x3 convolutions. "plain" has no shortcuts; "identity" (a projection only where the shape changes),
"projection" and "learned", y = g(W_c x + W_r h(x)), are He et al. 2015's unit with each form of shortcut; "scaled" is
the identity with one learned factor of each branch, which starts at 0 (Bachlechner et al. 2020). "preact" is the
identity with norm and activation before the convolutions (He et al. 2016), and "preact-FORM" such units with the other
forms. `gradients.png` shows the norm of each layer's gradient at initialisation and at the end.

The report in `benchmarks/results/ablations/residual/` is of an earlier version: its projections and learned maps start
from He's kernels instead of the identity (`jaxseg.nn.residual`), and the scaled and further pre-activation variants are
not measured.

Found on shapes, in that version: 5 seeds, after 500 steps, when all scores above the background still rise: the
identity reaches 52.13 ± 10.72 points of mIoU. The plain network predicts the background alone, 10.28 ± 0.00; the
difference has the interval [-55.16, -28.55]. Pre-activation reaches 74.62 ± 4.35, above the identity by [+7.53,
+37.45]. A projection at every unit, 12.96 ± 3.68, and the learned shortcut, 13.54 ± 2.39, hardly leave the background
in that time. The likely cause is the gradient at initialisation: that of the first layer is 2,900 times that of the
last layer before the head without shortcuts, 1,600 times with learned ones, 900 times with projections, 27 times with
the identity and twice with pre-activation (`gradients.csv`). With one unit a level the plain form is no worse
(experiments/resunet.py). The whole table is `benchmarks/results/ablations/residual/table.md`.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import ablation_recipe
from jaxseg.sweep import Sweep


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    return ablation_recipe(
        arg,
        "resunet",
        {"widths": (8, 16, 32), "blocks": 6, "unit": "basic"},
        steps=500,
        eval__every=125,
        checkpoint__every=250,
        log__gradients=True,
    )


def sweep() -> Sweep:
    """Returns the variants."""
    variants = {
        "plain": {"model__args__shortcut": "none"},
        "identity": {"model__args__shortcut": "auto"},
        "projection": {"model__args__shortcut": "projection"},
        "learned": {"model__args__shortcut": "learned"},
        "preact": {"model__args__shortcut": "auto", "model__args__unit": "preact"},
        "scaled": {"model__args__shortcut": "scaled"},
        "preact-plain": {"model__args__shortcut": "none", "model__args__unit": "preact"},
        "preact-projection": {"model__args__shortcut": "projection", "model__args__unit": "preact"},
        "preact-learned": {"model__args__shortcut": "learned", "model__args__unit": "preact"},
        "preact-scaled": {"model__args__shortcut": "scaled", "model__args__unit": "preact"},
    }
    return Sweep(variants, baseline="identity")
