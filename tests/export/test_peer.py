"""Our weights in segmentation_models.pytorch, torchvision and transformers: every entry, and the logits."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers import oracles
from helpers.marks import some_slow
from helpers.parity import FAST_COMPILE, assert_close, images, nchw, nhwc
from helpers.peers import form_of
from helpers.tiny_models import ADAPTER
from helpers.variables import variable_shapes

from jaxseg.build import build_parts
from jaxseg.config import default_config, update
from jaxseg.errors import ConfigError
from jaxseg.export.__main__ import main
from jaxseg.export.peer import PEERS, export_peer, state_dict
from jaxseg.pretrained import files
from jaxseg.run.load import Run
from jaxseg.state import TrainState

CLASSES = 3
DECODER = (4, 5, 6, 7, 8)  # ours, fine to coarse


def run_of(name: str, fields: dict[str, Any], **values: Any) -> Run:
    """A run of a network with random parameters and statistics, in the form of a peer."""
    config = default_config()
    update(config, model__name=name, model__args=fields, data__size=(64, 64), **values)
    parts = build_parts(config, CLASSES)
    rng = np.random.default_rng(0)

    def draw(path: Any, x: Any) -> np.ndarray:
        noise, last = rng.normal(size=x.shape).astype(np.float32), path[-1].key
        if last == "var":
            return 1 + 0.5 * np.abs(noise)
        if last == "scale":
            return 1 + 0.1 * noise
        fan = np.prod(x.shape[:-1]) if x.ndim > 1 else 100
        return noise / np.float32(max(fan, 1)) ** 0.5

    variables = jax.tree_util.tree_map_with_path(draw, variable_shapes(parts.model, (1, 64, 64, 3)))
    stats = variables["batch_stats"] if "batch_stats" in variables else {}
    state = TrainState(jax.numpy.int32(3), variables["params"], stats, (), None)
    names = tuple(map(str, range(CLASSES)))
    return Run(Path("run"), names, ((0, 0, 0),) * CLASSES, None, parts, state, "best")


def peer_fields(name: str, peer: str, encoder: str, **fields: Any) -> dict[str, Any]:
    form = form_of(name, PEERS[peer], encoder)
    own = dict(form.fields)
    inner = {**(own.pop("encoder_args") if "encoder_args" in own else {}), **fields.pop("encoder_args", {})}
    return {"encoder": encoder, **own, **fields, **({"encoder_args": inner} if inner else {})}


def loaded(module: Any, run: Run, peer: str) -> Any:
    """The module with the weights of the run, every entry accounted for."""
    torch = oracles.torch()
    state = {name: torch.from_numpy(x.copy()) for name, x in state_dict(run, peer).items()}
    module.load_state_dict(state, strict=True)
    return module.eval()


def check_logits(run: Run, module: Any, theirs: Any = lambda result: result, size: tuple[int, int] = (64, 96)) -> None:
    torch, x = oracles.torch(), images(*size)
    with torch.no_grad():
        expected = nhwc(theirs(module(nchw(x))))
    apply = jax.jit(lambda v, x: run.model.apply(v, x, train=False)[0], compiler_options=FAST_COMPILE)
    assert_close(apply(run.variables, x), expected, 1e-4)


def shorten(encoder: Any) -> None:
    for i in range(1, 5):
        setattr(encoder, f"layer{i}", getattr(encoder, f"layer{i}")[:1])


def test_a_unet_has_its_logits_in_smp():
    units = {"depths": (1, 1, 1, 1)}
    run = run_of("unet", peer_fields("unet", "smp", "resnet18", widths=DECODER, encoder_args=units))
    module = oracles.smp().Unet("resnet18", encoder_weights=None, decoder_channels=DECODER[::-1], classes=CLASSES)
    shorten(module.encoder)
    # At a size whose program the tests of reading such files have compiled.
    check_logits(run, loaded(module, run, "smp"), size=(65, 79))


@pytest.mark.slow  # of the same rules and transforms
def test_a_deeplab_has_its_logits_in_torchvision():
    torchvision = oracles.torchvision()
    from torchvision.models.segmentation import deeplabv3

    resnet = torchvision.models.resnet
    dilated = {"replace_stride_with_dilation": [False, True, True]}
    module = deeplabv3._deeplabv3_resnet(resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], **dilated), CLASSES, aux=True)
    fields = {"encoder_args": {"depths": (1, 1, 1, 1)}, "aux_width": 256}
    run = run_of("deeplabv3", peer_fields("deeplabv3", "torchvision", "resnet50", **fields))
    check_logits(run, loaded(module, run, "torchvision"), lambda result: result["out"])


def test_a_segformer_has_its_logits_in_transformers():
    transformers, torch = oracles.transformers(), oracles.torch()
    config = transformers.SegformerConfig(
        depths=[1, 1, 1, 1], decoder_hidden_size=16, num_labels=CLASSES, drop_path_rate=0.0
    )
    args = {"features": 16, "encoder_args": {"depths": (1, 1, 1, 1), "drop_path": 0.0}}
    run = run_of("segformer", peer_fields("segformer", "transformers", "mit_b0", **args))
    state = {name: torch.from_numpy(x.copy()) for name, x in state_dict(run, "transformers").items()}
    # `from_pretrained` knows the names of files in every version, also where the modules have others.
    module, said = transformers.SegformerForSemanticSegmentation.from_pretrained(
        None, config=config, state_dict=state, output_loading_info=True
    )
    assert not said["missing_keys"] and not said["unexpected_keys"]

    def enlarged(result: Any) -> Any:
        return torch.nn.functional.interpolate(result.logits, size=(64, 96), mode="bilinear", align_corners=False)

    check_logits(run, module.eval(), enlarged)


VIT = {"width": 16, "depth": 4, "num_heads": 2}


def test_a_dpt_has_its_logits_in_smp():
    """All but the classifier of timm, which theirs keeps unused."""
    torch = oracles.torch()
    fields = {"features": 8, "widths": (4, 6, 8, 10), "encoder_args": {**VIT, "grid": (4, 6)}}
    run = run_of("dpt", peer_fields("dpt", "smp", "vit_base", **fields))
    module = oracles.smp().DPT(
        "tu-vit_tiny_patch16_224",
        encoder_weights=None,
        encoder_output_indices=[0, 1, 2, 3],
        decoder_intermediate_channels=(4, 6, 8, 10),
        decoder_fusion_channels=8,
        classes=CLASSES,
        embed_dim=16,
        num_heads=2,
        img_size=(64, 96),
    )
    module.encoder.model.blocks = module.encoder.model.blocks[:4]
    state = {name: torch.from_numpy(x.copy()) for name, x in state_dict(run, "smp").items()}
    said = module.load_state_dict(state, strict=False)
    assert not said.unexpected_keys
    assert set(said.missing_keys) == {"encoder.model.head.weight", "encoder.model.head.bias"}
    check_logits(run, module.eval())


# The name of theirs, and what builds it as ours is by default.
OF_SMP = {
    "fpn": ("FPN", {}),
    "linknet": ("Linknet", {}),
    "manet": ("MAnet", {}),
    "pan": ("PAN", {}),
    "pspnet": ("PSPNet", {"encoder_depth": 5}),
    "unet": ("Unet", {}),
    "unetplusplus": ("UnetPlusPlus", {}),
    "upernet": ("UPerNet", {}),
    "deeplabv3": ("DeepLabV3", {}),
    "deeplabv3plus": ("DeepLabV3Plus", {}),
}
CASES = [
    *((name, "resnet18", "resnet18") for name in OF_SMP),
    *(("unet", name, name) for name in ("vgg11_bn", "mit_b0", "mobilenet_v2")),
    *(("unet", name, f"tu-{name}") for name in ("resnet18d", "convnext_tiny", "seresnet18")),
]


@pytest.mark.parametrize(
    "case",
    some_slow(CASES, [case for case in CASES if case[2] != "vgg11_bn"]),
)
def test_smp_finds_every_entry(case):
    """Names and shapes; the numbers follow, since they are those by which such files are read."""
    name, encoder, theirs = case
    smp, torch = oracles.smp(), oracles.torch()
    cls, arguments = OF_SMP[name]
    with torch.device("cpu" if encoder == "mit_b0" else "meta"):
        module = getattr(smp, cls)(theirs, encoder_weights=None, classes=CLASSES, **arguments)
    form = form_of(name, PEERS["smp"], encoder)
    whole = {"encoder_args": {"output_stride": 32}} if name == "pspnet" else {}
    sizes = {key: value for key, value in form.sizes.items() if key != "encoder_args"}
    run = run_of(name, peer_fields(name, "smp", encoder, **sizes, **whole))
    expected = {key: tuple(x.shape) for key, x in module.state_dict().items()}
    assert {key: x.shape for key, x in state_dict(run, "smp").items()} == expected


def test_a_network_of_another_form_is_refused():
    for name, peer, fields, values, words in (
        (
            "unet",
            "smp",
            {"encoder": "resnet18"},
            {},
            "of segmentation_models.pytorch is ours with up=nearest, .*would give other numbers there. Train one with "
            "--config.model.args.up=nearest --config.model.args.",
        ),
        ("resunet", "smp", {}, {}, r"segmentation_models\.pytorch has no network like resunet"),
        ("segformer", "smp", {}, {}, "no network like segformer whose names are known here. --format transformers has"),
        ("fpn", "smp", peer_fields("fpn", "smp", "efficientnet_b0"), {}, "has no fpn over efficientnet_b0"),
        ("fpn", "smp", peer_fields("fpn", "smp", "resnet18", norm="group"), {}, "ours with norm=batch"),
        (
            "deeplabv3plus",
            "smp",
            peer_fields("deeplabv3plus", "smp", "resnet18d"),
            {},
            "no network of the form of this deeplabv3plus over resnet18d: .* arrays have no place there: .*/encoder/",
        ),
        (
            "upernet",
            "transformers",
            ADAPTER,
            {},
            "no network .* over vit_base: .* arrays have no place there: .*/adapter/",
        ),
        ("fpn", "smp", peer_fields("fpn", "smp", "resnet18"), {"model__crf": "deeplab-v1"}, "ours with model.crf="),
    ):
        config = default_config()
        update(config, model__name=name, model__args=fields, data__size=(64, 64), **values)
        parts = build_parts(config, CLASSES)
        run = Run(Path("run"), ("a", "b", "c"), ((0, 0, 0),) * 3, None, parts, None, "best")
        if "arrays have no place" in words:
            run = dataclasses.replace(run_of(name, fields), workdir=Path("run"))
        with pytest.raises(ConfigError, match=words):
            state_dict(run, peer)


@pytest.fixture
def fpn(monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run of an FPN over a narrow ResNet, which the command finds in any workdir."""
    narrow = {"encoder_args": {"depths": (1, 1, 1, 1), "widths": (4, 4, 4, 4, 4)}, "width": 4, "branch_width": 4}
    run = run_of("fpn", {**peer_fields("fpn", "smp", "resnet18"), **narrow})
    monkeypatch.setattr("jaxseg.export.__main__.load_run", lambda workdir, which: run)
    return run


def test_sizes_other_than_the_peers_are_said(tmp_path: Path) -> None:
    run = run_of("unet", peer_fields("unet", "smp", "resnet18", widths=DECODER, encoder_args={"depths": (1,) * 4}))
    written = export_peer(run, tmp_path / "unet.safetensors", "smp")
    assert written.settings == ("widths=(4, 5, 6, 7, 8)",) and written.strict
    assert written.entries == len(files.read(written.path).arrays)


def test_the_command_writes_a_file_that_torch_reads(fpn: Run, tmp_path: Path, capsys) -> None:
    out = tmp_path / "fpn.safetensors"
    for _ in range(2):  # its own file is replaced
        assert main(["--workdir", "run", "--out", str(out), "--format", "smp"]) == 0
    said = capsys.readouterr().out
    assert "entries for segmentation_models.pytorch" in said and "images:  in [0, 1], minus (0.485," in said
    arrays = files.read(out).arrays
    assert arrays["segmentation_head.0.weight"].shape == (CLASSES, 4, 1, 1)
    pytest.importorskip("torch")
    import torch
    from safetensors.torch import load_file

    assert main(["--workdir", "run", "--out", str(tmp_path / "fpn.pth"), "--format", "smp"]) == 0
    with_torch, pickled = load_file(out), torch.load(tmp_path / "fpn.pth", weights_only=True)
    assert with_torch.keys() == pickled.keys() == arrays.keys()
    assert all(torch.equal(with_torch[name], pickled[name]) for name in arrays)
    counter = with_torch["encoder.bn1.num_batches_tracked"]
    assert counter.dtype == torch.int64 and counter.shape == ()


def test_what_cannot_be_written_is_said(fpn: Run, tmp_path: Path, capsys) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"mine")
    start = ["--workdir", "run", "--format", "smp", "--out"]
    for words, said in (
        ([*start, str(tmp_path / "mine.safetensors")], "exists and is no file of an export"),
        ([*start, str(tmp_path / "x.onnx")], "weights for another library end in .safetensors or .pth"),
        ([*start, str(tmp_path / "x.pth"), "--probabilities"], "--probabilities is for a program"),
    ):
        assert main(words) == 1 and said in capsys.readouterr().err
    assert (tmp_path / "mine.safetensors").read_bytes() == b"mine" and len(list(tmp_path.iterdir())) == 1
    from jaxseg.errors import ArgumentError

    with pytest.raises(ArgumentError, match="peer must be"):
        export_peer(fpn, tmp_path / "x.pth", "keras")  # type: ignore[arg-type]
