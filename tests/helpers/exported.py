"""Networks with parameters that give several classes, and what an exported file computes beside the network itself."""

import io
import zipfile
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from jaxseg.build import Parts, build_parts
from jaxseg.config import default_config, update
from jaxseg.export import stablehlo
from jaxseg.export.program import Program, make_program
from jaxseg.export.tiled import Tiles

QUICK = {"xla_backend_optimization_level": 0}
ABOUT = {"program": "jaxseg", "model": "tiny"}


class Difference(NamedTuple):
    """What an exported program and the network itself differ in.

    Attributes:
        probability: the largest difference of a probability.
        classes: the number of pixels of another class whose two best probabilities are further apart than that.
        varies: the largest difference of the probability of a class between two pixels, which says that there is
            something to compare.
    """

    probability: float
    classes: int
    varies: float


def tiny_parts(name: str, args: dict[str, Any], num_classes: int = 5, **keys: Any) -> Parts:
    """Returns the parts of a network on images of 32x32; with data__fit="crop", of any size."""
    config = default_config()
    update(config, model__name=name, data__size=(32, 32), eval__multiple=16, **keys)
    config.model.args = args
    return build_parts(config, num_classes)


def shaken(parts: Parts) -> dict[str, Any]:
    """Returns variables whose biases and scales are not those of the initialisation."""
    image, rng = jnp.zeros((1, *parts.image_shape)), np.random.default_rng(0)
    variables = jax.jit(lambda: parts.model.init(jax.random.key(0), image), compiler_options=QUICK)()

    def shake(x: Any, size: float) -> np.ndarray:
        return np.asarray(x + size * rng.normal(size=x.shape), np.float32)

    shaken = {"params": jax.tree.map(lambda x: shake(x, 0.1), variables["params"])}
    if "batch_stats" in variables:
        shaken["batch_stats"] = jax.tree.map(lambda x: np.abs(shake(x, 0.1)) + 0.1, variables["batch_stats"])
    return shaken


def random_images(b: int, h: int, w: int, channels: int = 3) -> np.ndarray:
    """Returns u8[b,h,w,c] with areas of one colour."""
    rng = np.random.default_rng(h)
    coarse = rng.integers(0, 256, (b, -(-h // 4), -(-w // 4), channels), np.uint8)
    return coarse.repeat(4, 1).repeat(4, 2)[:, :h, :w]


def difference(found: list[np.ndarray], expected: dict[str, Any]) -> Difference:
    """Compares [classes, probabilities] with the result of a program."""
    classes, probabilities = np.asarray(expected["classes"]), np.asarray(expected["probabilities"])
    most = float(np.abs(found[1] - probabilities).max())
    best = np.sort(probabilities, -1)
    ties = best[..., -1] - best[..., -2] <= 2 * most if best.shape[-1] > 1 else np.abs(best[..., 0] - 0.5) <= most
    varies = float(np.ptp(probabilities.reshape(-1, probabilities.shape[-1]), axis=0).max())
    return Difference(most, int(((found[0] != classes) & ~ties).sum()), varies)


def onnx_difference(parts: Parts, fixed: tuple[int, int] | None = None, tiles: Tiles | None = None) -> Difference:
    """Exports a network to ONNX, which sees images at a `fixed` size or in tiles, and compares onnxruntime with JAX."""
    size = (2, 33, 75)
    program = make_program(parts, parts.model, shaken(parts), probabilities=True, size=fixed, tiles=tiles)
    return difference(run_onnx(program, size), computed(program, size))


def run_onnx(program: Program, size: tuple[int, int, int]) -> list[np.ndarray]:
    """Returns [classes, probabilities] of `random_images` of a size, by onnxruntime."""
    import onnxruntime

    from jaxseg.export.to_onnx.model import convert, serialized

    session = onnxruntime.InferenceSession(serialized(convert(program, 3, ABOUT)), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": random_images(*size)})


def run_stablehlo(program: Program, size: tuple[int, int, int]) -> list[np.ndarray]:
    """Returns [classes, probabilities] of `random_images` of a size, by the stored program."""
    file = io.BytesIO()
    stablehlo.prepare(program, 3, ABOUT)(file)
    with zipfile.ZipFile(file) as archive:
        stored = export.deserialize(bytearray(archive.read(stablehlo.PROGRAM)))
    return [np.asarray(x) for x in jax.jit(stored.call, compiler_options=QUICK)(random_images(*size))]


def computed(program: Program, size: tuple[int, int, int]) -> dict[str, Any]:
    """Returns what JAX computes for `random_images` of a size."""
    return jax.jit(program, compiler_options=QUICK)(random_images(*size))
