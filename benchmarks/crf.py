"""Time, memory and exactness of the dense CRF: `python benchmarks/crf.py --out NAME` takes under three minutes.

Ten iterations at several sizes and numbers of classes, by the lattice; what the parts of an iteration take at 500x500
pixels and 21 classes; and how far the lattice is from the exact sums over all pairs of pixels, on small images. The
images are drawn, discs of one colour each with noise of 3 units, or those of a folder (`--images PATH`), resized.
"""

import argparse
import functools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from lib.timing import (
    compile_jit,
    environment,
    interleave,
    make_parser,
    measured_on,
    peak_bytes,
    rows_below,
    save,
    share_gpu,
    wait,
)

from jaxseg.inference.crf import capacity_for, numbers, refiner
from jaxseg.nn import CRF
from jaxseg.nn.ops.dense_crf import (
    exact_filter,
    fast_filter,
    kernel_radius,
    normalized,
    pixel_features,
    smooth_filter,
)
from jaxseg.nn.ops.permutohedral import lattice, lattice_filter

SIZES = ((250, 250, 21), (500, 500, 2), (500, 500, 21), (500, 500, 60), (1000, 1000, 21))
CLOSE = ((64, 64, 21), 3)  # size of the images that are compared with the exact sums, and their number
SETTINGS = "deeplab-v2-resnet101"
PRESETS = ("deeplab-v1", SETTINGS, "krahenbuhl")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=Path, metavar="PATH", help="folder of images (default: drawn ones)")
    options = parser.parse_args(argv)
    share_gpu()
    sizes, (close, count), presets = SIZES, CLOSE, PRESETS
    if options.smallest:
        sizes, close, count, presets, options.repeats = ((16, 16, 3),), (8, 8, 3), 1, PRESETS[:1], 1
    record: dict[str, Any] = {"environment": environment(), "settings": str(CRF.parse(SETTINGS)), "drawn": True}
    files = sorted(options.images.iterdir()) if options.images else []
    record["drawn"] = not files
    record["sizes"] = [measure(size, files, options) for size in sizes]
    record["parts"] = parts(sizes[min(2, len(sizes) - 1)], files, options)
    record["presets"] = [distance(name, close, count, files) for name in presets]
    save(options.out, record, describe(record))
    return 0


def scene(size: tuple[int, int, int], files: Sequence[Path], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns an image with colours from 0 to 255, f32[1,h,w,3], and logits f32[1,h,w,k] of a network that errs."""
    h, w, k = size
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    classes, image = np.zeros((h, w), int), np.stack([y / h, x / w, 1 - y / h], -1) * 60 + 60
    for _ in range(3 * k):
        inside = (y - rng.uniform(0, h)) ** 2 + (x - rng.uniform(0, w)) ** 2 < (rng.uniform(0.03, 0.2) * h) ** 2
        classes[inside], image[inside] = rng.integers(k), rng.uniform(0, 255, 3) + 0.1 * image[inside]
    image += rng.normal(0, 3, image.shape)
    if files:
        from PIL import Image

        image = np.asarray(Image.open(files[seed % len(files)]).convert("RGB").resize((w, h)), np.float64)
    # Scores of a network with logits at stride 8, some of which are wrong.
    coarse = 3.0 * np.eye(k)[classes[4::8, 4::8]]
    coarse += rng.normal(size=coarse.shape)
    logits = jax.image.resize(coarse.astype(np.float32), (h, w, k), "bilinear")
    return np.clip(image, 0, 255).astype(np.float32)[None], np.asarray(logits)[None]


def measure(size: tuple[int, int, int], files: Sequence[Path], options: argparse.Namespace) -> dict[str, Any]:
    """Returns seconds (with the building of the lattice), CPU seconds and memory of `refine` at a size."""
    image, logits = scene(size, files)
    crf = CRF.parse(SETTINGS)
    program = refiner(crf, image, size[2])
    begin = time.perf_counter()
    compiled = program.lower(logits, image, numbers(crf)).compile()
    compiling = time.perf_counter() - begin
    call = functools.partial(compiled, jnp.asarray(logits), jnp.asarray(image), numbers(crf))
    seconds = interleave({"crf": call}, min(3, options.repeats))["crf"]
    begin = time.process_time()
    wait(call())
    return {
        "size": size,
        "vertices": capacity_for(crf, image),
        "seconds": seconds,
        "cpu_seconds": time.process_time() - begin,
        "compile_seconds": compiling,
        "memory_bytes": peak_bytes(compiled),
    }


def parts(size: tuple[int, int, int], files: Sequence[Path], options: argparse.Namespace) -> dict[str, float]:
    """Returns the seconds of the parts of one iteration, and of the building of the lattice before the first."""
    image, logits = scene(size, files)
    crf = CRF.parse(SETTINGS)
    capacity = capacity_for(crf, image)
    features = pixel_features(jnp.asarray(image), crf.appearance_xy, crf.appearance_rgb).reshape(1, -1, 5)
    q = jax.nn.softmax(jnp.asarray(logits))
    flat = q.reshape(1, -1, size[2])
    build, _ = compile_jit(lambda features: lattice(features, capacity), features)
    graph = build(features)
    appearance, _ = compile_jit(lattice_filter, graph, flat)
    smooth, _ = compile_jit(lambda q: smooth_filter(q, crf.smooth_xy, kernel_radius(crf.smooth_xy)), q)
    softmax, _ = compile_jit(lambda z, q: jax.nn.softmax(z + q), q, q)
    cases: dict[str, Callable[[], Any]] = {
        "building the lattice, once": lambda: build(features),
        "appearance": lambda: appearance(graph, flat),
        "smoothness": lambda: smooth(q),
        "softmax": lambda: softmax(q, q),
    }
    return interleave(cases, min(3, options.repeats))


def distance(name: str, size: tuple[int, int, int], count: int, files: Sequence[Path]) -> dict[str, Any]:
    """Returns how far messages and mean field of a preset by the lattice are from those of the exact sums."""
    settings = [CRF.parse(f"{name},method={method}") for method in ("exact", "fast")]
    drawn = [scene(size, files, seed) for seed in range(count)]
    image, logits = (np.concatenate(arrays) for arrays in zip(*drawn, strict=True))
    features = pixel_features(jnp.asarray(image), settings[0].appearance_xy, settings[0].appearance_rgb)
    filters = exact_filter, functools.partial(fast_filter, capacity=capacity_for(settings[1], image))
    messages, fields = [], []
    for crf, each in zip(settings, filters, strict=True):

        def message(q: jax.Array, features: jax.Array, crf: CRF = crf, each: Any = each) -> jax.Array:
            return normalized(each(features), (*q.shape[:3], 1), q.dtype, crf.normalization)(q)

        messages.append(np.asarray(jax.jit(message)(jax.nn.softmax(logits), features)))
        fields.append(np.asarray(refiner(crf, image, size[2])(logits, image, numbers(crf))))
    apart, same = np.abs(messages[0] - messages[1]), fields[0].argmax(-1) == fields[1].argmax(-1)
    field = np.abs(fields[0] - fields[1]).mean()
    found = {"message": apart.mean(), "message_max": apart.max(), "field": field, "same": same.mean()}
    return {"preset": name, "size": size, "images": count} | {key: float(value) for key, value in found.items()}


def describe(record: dict[str, Any]) -> str:
    """Returns the tables."""
    rows = []
    for row in record["sizes"]:
        h, w, k = row["size"]
        memory = "" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 1e6:.0f}"
        cells = (f"{h}x{w}", k, row["vertices"], f"{row['seconds']:.2f}", f"{row['cpu_seconds']:.2f}", memory)
        rows.append((*cells, f"{row['compile_seconds']:.1f}"))
    columns = ("pixels", "classes", "vertices", "seconds", "CPU seconds", "memory, MB", "compiling, s")
    images = "drawn images" if record["drawn"] else "photographs"
    text = rows_below(columns, rows, f"{record['settings']}, {images}, with the building of the lattice.")
    text += "\n" + rows_below(
        ("part of an iteration", "ms"), [(name, f"{1e3 * value:.0f}") for name, value in record["parts"].items()]
    )
    (h, w, k), count = record["presets"][0]["size"], record["presets"][0]["images"]
    note = (
        f"Probabilities by the lattice against the sums over all pairs: {count} images of {h}x{w} pixels, {k} classes; "
        "a message of the appearance kernel, and the mean field at the end."
    )
    rows = [
        (r["preset"], f"{r['message']:.4f}", f"{r['message_max']:.3f}", f"{r['field']:.4f}", f"{100 * r['same']:.2f}")
        for r in record["presets"]
    ]
    columns = ("preset", "message, mean", "message, largest", "mean field, mean", "same class, %")
    return text + "\n" + rows_below(columns, rows, note) + "\n" + measured_on(record) + "\n"


if __name__ == "__main__":
    sys.exit(main())
