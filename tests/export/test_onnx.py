"""Export to ONNX: valid models, equal to JAX in onnxruntime at sizes that they were not traced at, for all networks."""

import json
import re
import runpy
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.exported import ABOUT, onnx_difference, tiny_parts
from helpers.tiny_models import ADAPTER, ENCODERS, TINY
from helpers.tiny_run import make_run, tiny_config
from jax import lax
from PIL import Image

from jaxseg.__main__ import main
from jaxseg.data import make_source
from jaxseg.errors import ArgumentError, ConfigError
from jaxseg.export import export_run
from jaxseg.inference import load

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from jaxseg.export.to_onnx.model import convert, serialized  # noqa: E402

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
NETWORKS = [name for name in TINY if name != "dcgan"]
FAMILIES = ("convnext_tiny", "efficientnet_b0", "hrnet_w18", "mit_b0", "mobilenet_v2", "mobilenet_v3_large", "plain")
FAMILIES += ("residual", "resnet18d", "resnet50", "resnext50_32x4d", "seresnet50", "vgg11", "vgg11_bn")
FAMILIES += ("maxvit_tiny", "mscan_tiny", "pvt_v2_b0", "sam2_hiera_tiny", "stdc1", "swin_tiny", "swinv2_tiny")
FAMILIES += ("vit_base_dinov2_reg", "vit_base_dinov3")


def outputs_of(program, *images, channels=3):
    """The results of onnxruntime for a function of u8[b,h,w,c] that returns a dictionary."""
    session = onnxruntime.InferenceSession(serialized(convert(program, channels, ABOUT)))
    return [session.run(None, {"image": image}) for image in images]


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    """One run for each way in which images are fitted."""
    root = tmp_path_factory.mktemp("runs")
    return {fit: make_run(root / fit, tiny_config(data__fit=fit, eval__multiple=4)) for fit in ("resize", "crop")}


@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_it_computes_what_predict_does(workdirs, tmp_path, fit, capsys):
    workdir = workdirs[fit]
    assert main(["export", "--workdir", str(workdir), "--out", str(tmp_path / "run.onnx"), "--probabilities"]) == 0
    assert "run.onnx: cnn after 10 steps" in capsys.readouterr().out
    run = load(workdir)
    session = onnxruntime.InferenceSession(tmp_path / "run.onnx")
    assert [x.name for x in session.get_outputs()] == ["classes", "probabilities"]
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == list(run.classes) and about["model"] == "cnn"
    image = np.random.default_rng(0).integers(0, 256, (37, 26, 3), np.uint8)
    classes, probabilities = session.run(None, {"image": image[None]})
    expected = run.predict(image, probabilities=True)
    np.testing.assert_array_equal(classes[0], expected.classes)
    np.testing.assert_allclose(probabilities[0], expected.probabilities, atol=1e-5)
    assert classes.dtype == np.uint8 and len(np.unique(classes)) > 1


@pytest.mark.parametrize("name", ["resunet", "segformer"])
def test_the_first_networks(name):
    found = onnx_difference(tiny_parts(name, TINY[name], data__fit="crop"))
    assert found.probability <= 1e-4 and found.classes == 0 and found.varies > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("fit", ["resize", "crop"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network(name, fit):
    fixed = (32, 32) if name in ("attention_decoder", "pan") and fit == "crop" else None
    found = onnx_difference(tiny_parts(name, TINY[name], data__fit=fit), fixed)
    assert found.probability <= 1e-4 and found.classes == 0 and found.varies > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("encoder", FAMILIES)
def test_every_family_of_encoders(encoder):
    args = {"width": 8, "branch_width": 4, "finest": 1, "encoder": encoder, "encoder_args": ENCODERS[encoder]}
    found = onnx_difference(tiny_parts("fpn", args, data__fit="crop"))
    assert found.probability <= 1e-4 and found.classes == 0


@pytest.mark.slow
@pytest.mark.parametrize("pyramid", ["adapter", "simple"])
def test_patches_of_which_no_level_has_the_stride(pyramid):
    """14 pixels, as DINOv2's: levels of strides 4 to 32 are sampled between the patches."""
    fields = ADAPTER["encoder_args"] | {"depth": 1, "taps": [1], "patch": 14, "pyramid": pyramid}
    args = TINY["fpn"] | {"finest": 4, "encoder": "vit_base_dinov2_reg", "encoder_args": fields}
    found = onnx_difference(tiny_parts("fpn", args, data__fit="crop"))
    assert found.probability <= 1e-4 and found.classes == 0


def test_operations_that_no_network_has_are_named_with_their_layer():
    def sorts(image):
        with jax.named_scope("head"):
            return {"classes": lax.sort(image[..., 0])}

    with pytest.raises(ConfigError, match="no translation of the operation sort, in the layer head"):
        convert(sorts, 3, ABOUT)


def test_sizes_are_computed_from_those_of_the_image():
    def program(image):
        b, h, w, _ = image.shape
        rows = jax.numpy.arange(h, dtype=np.float32) * (h // 3) - (w % 4) * (-h // 2)
        return {"classes": jax.numpy.broadcast_to(rows.reshape(1, h, 1), (b, h, w)) + (h * w**2)}

    images = [np.zeros((b, h, w, 3), np.uint8) for b, h, w in ((1, 7, 9), (2, 4, 6))]
    for image, [found] in zip(images, outputs_of(program, *images)):
        np.testing.assert_array_equal(found, program(image)["classes"])


def test_padding_at_the_edges_may_be_of_no_row_or_column():
    """What is repeated 0 times is an array without elements, which is reshaped before it is joined."""

    def program(image):
        missing = [-side % 4 for side in image.shape[1:3]]
        return {"classes": jax.numpy.pad(image, ((0, 0), *((0, side) for side in missing), (0, 0)), mode="edge")}

    images = [np.arange(b * h * w * 3, dtype=np.uint8).reshape(b, h, w, 3) for b, h, w in ((2, 4, 6), (1, 5, 8))]
    for image, [found] in zip(images, outputs_of(program, *images)):
        np.testing.assert_array_equal(found, program(image)["classes"])


def test_the_largest_of_any_axis_with_ties():
    """Of equal values the first is taken, as by `lax.top_k`."""

    def parts(image):  # [b,h,w,3,4]
        return np.float32([[[[[1, 2, 1, 3]]]]]) * image[..., None].astype(np.float32)

    def program(image):
        found = {axis: lax.top_k(parts(image), 2, axis=axis) for axis in (3, 4)}
        return {f"{name}{axis}": x for axis, pair in found.items() for name, x in zip(("values", "places"), pair)}

    image = np.random.default_rng(0).integers(0, 3, (1, 5, 7, 3)).astype(np.uint8)
    session = onnxruntime.InferenceSession(serialized(convert(program, 3, ABOUT)))
    found = dict(zip([output.name for output in session.get_outputs()], session.run(None, {"image": image})))
    for axis in (3, 4):
        places = np.take(np.argsort(-parts(image), axis=axis, kind="stable"), range(2), axis=axis)
        np.testing.assert_array_equal(found[f"places{axis}"], places)
        np.testing.assert_array_equal(found[f"values{axis}"], np.take_along_axis(parts(image), places, axis))


def test_orders_of_axes_are_kept_in_mind():
    """Transposes between operations that read any order become none."""

    def program(image):
        x = image.astype(np.float32).transpose(0, 3, 1, 2) * 2
        x = (x + x.transpose(0, 1, 2, 3)).transpose(0, 2, 3, 1)
        y = lax.slice_in_dim(x[:, ::-1], 1, 2, axis=3)
        return {"classes": jax.numpy.concatenate([y, y], 3).sum(3) + x.max(3).argmax(2, keepdims=True)}

    image = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
    model = convert(program, 3, ABOUT)
    assert not [node for node in model.graph.node if node.op_type == "Transpose"]
    [[found]] = outputs_of(program, image)
    np.testing.assert_array_equal(found, program(image)["classes"])


def test_half_precision_and_whole_numbers(workdirs, tmp_path):
    run = load(workdirs["resize"])
    image = make_source(run.config, run.config.data.val_split)[0]["image"]
    expected, models = run.predict(image, probabilities=True), {}
    for dtype, most in (("float32", 1e-5), ("float16", 0.02), ("int8", 0.2)):
        written = export_run(run, tmp_path / f"{dtype}.onnx", dtype=dtype, probabilities=True)
        models[dtype] = onnx.load(written.path)
        assert {prop.key: prop.value for prop in models[dtype].metadata_props}["dtype"] == dtype
        session = onnxruntime.InferenceSession(written.path)
        classes, probabilities = session.run(None, {"image": image[None]})
        assert np.abs(probabilities[0] - expected.probabilities).max() <= most
        assert (classes[0] == expected.classes).mean() > 0.9
        assert [x.type for x in session.get_outputs()] == ["tensor(uint8)", "tensor(float)"]
    assert kernel_types(models["float16"]) == {onnx.TensorProto.FLOAT16}
    assert kernel_types(models["int8"]) == {onnx.TensorProto.INT8}
    # A file of another dtype is one of an export too, and is replaced.
    export_run(run, tmp_path / "int8.onnx", dtype="float32")


def kernel_types(model):
    """The types of the kernels of convolutions."""
    kernels = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 4 and min(tensor.dims[:2]) > 1]
    return {tensor.data_type for tensor in kernels}


def test_dtypes_that_a_format_does_not_have(workdirs, tmp_path):
    run = load(workdirs["resize"])
    for file, dtype, words in (
        ("run.stablehlo", "int8", "dtype int8 is one of ONNX"),
        ("run.onnx", "bfloat16", "give dtype float16 or float32"),
    ):
        with pytest.raises(ConfigError, match=words):
            export_run(run, tmp_path / file, dtype=dtype)
    with pytest.raises(ArgumentError, match="dtype must be"):
        export_run(run, tmp_path / "run.onnx", dtype="int4")
    assert not list(tmp_path.iterdir())


def test_the_script_of_the_page(workdirs, tmp_path, monkeypatch, capsys):
    [script] = [code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "onnxruntime" in code]
    run = load(workdirs["resize"])
    export_run(run, tmp_path / "run.onnx")
    image = np.random.default_rng(0).integers(0, 256, (37, 26, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    (tmp_path / "segment.py").write_text(script)
    paths = [str(tmp_path / name) for name in ("segment.py", "run.onnx", "image.png", "classes.png")]
    monkeypatch.setattr(sys, "argv", paths)
    runpy.run_path(paths[0], run_name="__main__")
    with Image.open(paths[-1]) as classes:
        np.testing.assert_array_equal(np.asarray(classes), run.predict(image).classes)
    assert run.classes[0] in capsys.readouterr().out


def test_without_the_package_it_says_how_to_install_it(workdirs, tmp_path, monkeypatch):
    run = load(workdirs["resize"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package onnx: pip install -e '\.\[export\]'"):
        export_run(run, tmp_path / "run.onnx")
    assert not (tmp_path / "run.onnx").exists()


def test_the_page_has_the_table_of_the_benchmark_and_all_of_it_passes():
    results = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
    assert (results / "exported.md").read_text(encoding="utf-8") in PAGE
    rows = json.loads((results / "exported.json").read_text())["networks"]
    assert {row["name"] for row in rows} == {*NETWORKS, *FAMILIES}
    assert all(row[form]["passes"] for row in rows for form in ("stablehlo", "onnx"))
