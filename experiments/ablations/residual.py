"""Do residual shortcuts help a deep network, and which of them?

    python -m jaxseg.sweep --config experiments/ablations/residual.py
    python -m jaxseg.sweep --config experiments/ablations/residual.py:folder --config.data.dir=MY_FOLDER

One ResUNet of 60 3x3 convolutions. "plain" has no shortcuts; "identity" (a projection only where the shape changes),
"projection" and "learned", y = g(W_c x + W_r h(x)), are He et al. 2015's unit with each form of shortcut; "scaled" is
the identity with one learned factor of each branch, which starts at 0 (Bachlechner et al. 2020). "preact" is the
identity with norm and activation before the convolutions (He et al. 2016), and "preact-FORM" such units with the other
forms. `gradients.png` shows the norm of each layer's gradient at initialisation and at the end.

Found on shapes: 5 seeds, after 500 steps, when the scores of most variants still rise, the identity reaches 49.64 ±
14.56 points of mIoU. The plain network predicts hardly more than the background, 10.74 ± 1.03; the difference has the
interval [-56.41, -21.38]. With the norms after the convolutions, a projection at every unit, 25.38 ± 14.22, and the
learned shortcut, 19.72 ± 6.47, are below the identity, by [-36.48, -12.05] and [-45.17, -14.66]. Pre-activation reaches
76.12 ± 3.84, above the identity by [+4.47, +48.49]; with it the projection, 70.33 ± 12.31, and the learned shortcut,
69.40 ± 9.96, are not separable from it. Pre-activation alone does not help: without shortcuts it is 12.41 ± 1.38. The
scaled shortcut, 17.57 ± 0.96 and with pre-activation 36.82 ± 5.97, has learned little in that time: at initialisation
only its factors, which are 0, have a gradient.

The likely cause of the rest is the gradient at initialisation: that of the first layer is 3,100 times that of the last
convolution before the head without shortcuts, 600 times with pre-activation alone, 27 to 30 times with the identity,
projections and learned maps, and 1.4 to 2.1 times with these and pre-activation (`gradients.csv`). With one unit a
level the plain form is no worse (experiments/resunet.py). The whole table is
`benchmarks/results/ablations/residual/table.md`.
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
        folder={"steps": 200, "eval__every": 100, "checkpoint__every": 200},
        steps=500,
        eval__every=125,
        checkpoint__every=250,
        log__gradients=True,
    )


def sweep(arg: str | None = None) -> Sweep:
    """Returns the variants: of a folder the four that differ most on shapes."""
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
    if arg == "folder":
        variants = {name: variants[name] for name in ("plain", "identity", "learned", "preact")}
    return Sweep(variants, baseline="identity")
