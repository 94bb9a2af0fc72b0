"""What do residual units lose that share one set of weights, and does a weight on the identity help them?

    python -m jaxseg.sweep --config experiments/ablations/sharing.py

One pre-activation ResUNet with six units a level. In "shared" the five units of a level after its first have one set of
parameters, at the same depth, operations and number of norm statistics. "weighted" has a learned weight of the identity
for each channel, y = w ⊙ x + h(x), and "shared-weighted" has both.

Not measured: this sweep has no report, and nothing is known about its question. Only shrunk networks (widths 4 and 8,
three units a level, 16x16 pixels) were trained, to see that each variant can be.
"""

from jaxseg.config import ConfigDict
from jaxseg.config.recipes import ablation_recipe
from jaxseg.sweep import Sweep


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the configuration that the variants change."""
    return ablation_recipe(arg, "resunet", {"widths": (8, 16, 32), "blocks": 6}, log__gradients=True)


def sweep() -> Sweep:
    """Returns the variants."""
    variants = {
        f"{units}{'-weighted' if shortcut == 'weighted' else ''}": {
            "model__args__shared": units == "shared",
            "model__args__shortcut": shortcut,
        }
        for units in ("separate", "shared")
        for shortcut in ("auto", "weighted")
    }
    return Sweep(variants, baseline="separate")
