"""What decoders read of the encoder `residual`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.models import encoders
from tests.helpers.variables import drawn


def test_levels_are_normed_and_activated_sums_and_stages_read_the_bare_sums():
    x = jax.random.normal(jax.random.key(0), (2, 6, 7, 3))
    normed, bare = (encoders.build("residual", widths=(4, 6), output_norm=given) for given in (True, False))
    variables = drawn(normed, x)
    own = {kind: {k: v for k, v in tree.items() if "norm" not in k} for kind, tree in variables.items()}
    levels, sums = jax.jit(normed.apply)(variables, x), jax.jit(bare.apply)(own, x)
    assert len(levels) == len(sums) == 2
    for i, (level, total) in enumerate(zip(levels, sums, strict=True)):
        params, stats = variables["params"][f"norm{i}"], variables["batch_stats"][f"norm{i}"]
        spread = np.sqrt(np.asarray(stats["var"], np.float64) + 1e-5)
        expected = (np.asarray(total, np.float64) - stats["mean"]) / spread * params["scale"] + params["bias"]
        np.testing.assert_allclose(level, np.maximum(expected, 0.0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name, args", [("resunet", {}), ("fpn", {"finest": 1, "encoder": "residual"})])
def test_only_decoders_without_norms_of_their_own_have_them_read(name, args):
    def children(**fields):
        form = {"widths": (4, 6), "unit": fields.pop("unit", "preact")}
        given = {"encoder_args": form} if args else form
        model = models.build(name, num_classes=2, **args, **given)
        shape = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
        return set(jax.eval_shape(model.init, jax.random.key(0), shape)["params"]["encoder"])

    assert children() == {"stage0", "stage1"} | ({"norm0", "norm1"} if args else set())
    assert children(unit="basic") == {"stage0", "stage1"}
