"""Do residual shortcuts help a deep network, and which of them?

    python -m jaxseg.sweep --config experiments/ablations/residual.py

One ResUNet of 60 3x3 convolutions. "plain" has no shortcuts; "identity" (a projection only where the shape changes),
"projection" and "learned", y = g(W_c x + W_r h(x)), are He et al. 2015's unit with each form of shortcut; "preact" is
the identity with norm and activation before the convolutions (He et al. 2016). `gradients.png` shows the norm of each
layer's gradient at initialisation and at the end.

Found on shapes: 5 seeds, after 600 steps: the plain network stays at the background, 10.28 ± 0.00 points of mIoU, and
the identity reaches 63.11 ± 10.22, more by an interval of [+40.15, +65.52]; pre-activation is best, 80.24 ± 2.65. A
projection at every unit, 15.55 ± 4.06, and the learned shortcut, 17.09 ± 3.51, hardly leave the background in that
time; we take it that the signal has to pass unchanged. At initialisation the gradient grows thousands of times from
the logits to the image without shortcuts, and by little with pre-activation (`gradients.png`). With one unit a level
the plain form is no worse (README, Results). The whole report is in `benchmarks/results/ablations/residual/`.
"""

from jaxseg.config import ConfigDict, default_config, parse_arg, update
from jaxseg.presets import for_ablation
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
