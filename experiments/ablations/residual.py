"""Do residual shortcuts help a deep network, and which of them?

    python -m jaxseg.sweep --config experiments/ablations/residual.py

One ResUNet of 60 3x3 convolutions. "plain" has no shortcuts; "identity" (a projection only where the shape changes),
"projection" and "learned", y = g(W_c x + W_r h(x)), are He et al. 2015's unit with each form of shortcut; "preact" is
the identity with norm and activation before the convolutions (He et al. 2016). `gradients.png` shows the norm of each
layer's gradient at initialisation and at the end.

Found on shapes: 5 seeds, after 500 steps, where all that learn still rise: the identity reaches 52.13 ± 10.72 points
of mIoU; the plain network stays at the background, 10.28 ± 0.00, below it by an interval of [-55.16, -28.55].
Pre-activation, 74.62 ± 4.35, is above the identity by [+7.53, +37.45]. A projection at every unit, 12.96 ± 3.68, and
the learned shortcut, 13.54 ± 2.39, hardly leave the background in that time. At initialisation the gradient of the
first layer is 2,900 times that of the last before the head without shortcuts, 1,600 times with learned ones, 900 with
projections, 27 with the identity and 2 with pre-activation (`gradients.csv`), which we take for the cause. With one
unit a level the plain form is no worse (README, Results). The whole table is
`benchmarks/results/ablations/residual/table.md`.
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.config.recipes import for_ablation
from jaxseg.sweep import Sweep


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    parse_arg(arg, ("shapes",))
    config = for_ablation(default_config())
    update(
        config,
        model__name="resunet",
        model__args={"widths": (8, 16, 32), "blocks": 6, "unit": "basic"},
        steps=500,
        eval__every=125,
        checkpoint__every=250,
        log__gradients=True,
    )
    return config


def sweep() -> Sweep:
    """Returns the variants."""
    variants = {
        "plain": {"model__args__shortcut": "none"},
        "identity": {"model__args__shortcut": "auto"},
        "projection": {"model__args__shortcut": "projection"},
        "learned": {"model__args__shortcut": "learned"},
        "preact": {"model__args__shortcut": "auto", "model__args__unit": "preact"},
    }
    return Sweep(variants, baseline="identity")
