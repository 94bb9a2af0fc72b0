"""The experiments that are shipped: every variant is valid, and each trains."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers.marks import some_slow
from helpers.parity import FAST_COMPILE
from helpers.tiny_training import ROOT

from jaxseg import build
from jaxseg.config import ConfigError, command, to_dict, update, validate
from jaxseg.config.recipes import VARIANTS, ablation_recipe, recipe
from jaxseg.nn import he_normal
from jaxseg.run.check import check
from jaxseg.run.report import read_log
from jaxseg.train import main, train

EXPERIMENTS = sorted(path.stem for path in (ROOT / "experiments").glob("*.py"))


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    """Experiments are named from the root of the repository."""
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_and_variant_is_valid(name, variant):
    config = command.load_experiment(f"experiments/{name}.py:{variant}")
    validate(config)
    build.make_model(config, 21)
    docstring = (ROOT / "experiments" / f"{name}.py").read_text().split('"""')[1]
    assert f"python -m jaxseg.train --config experiments/{name}.py" in docstring
    # Only measured numbers: the author of an experiment adds the score after training it.
    measured = r"[Ss]hapes validation mIoU: (\.\d{3} \(|not yet measured\.)"
    assert re.search(measured, docstring) and "@" not in docstring


def test_the_experiment_written_out_in_full_is_the_recipe_of_the_shapes():
    written = command.load_experiment("experiments/resunet.py")
    assert to_dict(written) == to_dict(recipe(None, "resunet", shapes=dict(written.model.args)))


def test_a_recipe_gives_each_data_set_its_own_keys_over_those_of_all():
    settings = {"shapes": {"widths": (4, 8)}, "full": {"widths": (8, 16)}, "shapes_keys": {"steps": 7}}
    small = recipe("shapes", "unet", **settings, steps=9, batch_size=3)
    large = recipe("voc", "unet", **settings, steps=9, batch_size=3)
    assert (small.data.source, small.model.args["widths"], small.steps, small.batch_size) == ("shapes", (4, 8), 7, 3)
    assert (large.data.source, large.model.args["widths"], large.steps, large.batch_size) == ("voc2012", (8, 16), 9, 3)
    assert recipe(None, "cnn") == recipe("shapes", "cnn")
    assert ablation_recipe(None, "unet", {"widths": (4,)}, steps=5).steps == 5
    with pytest.raises(ConfigError, match=r"no variant 'camvids'.*camvid"):
        recipe("camvids", "unet")
    with pytest.raises(ConfigError, match="no variant 'camvid'"):
        ablation_recipe("camvid", "unet", {})


def test_experiment_files_written_for_version_0_1_load(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from jaxseg.config import default_config, parse_arg, update\n"
        "from jaxseg.presets import VARIANTS, for_data\n"
        "def get_config(arg=None):\n"
        "    config = for_data(default_config(), parse_arg(arg, VARIANTS))\n"
        "    update(config, model__name='cnn')\n"
        "    return config\n"
    )
    for variant in VARIANTS:
        assert command.load_experiment(f"{tmp_path / 'mine.py'}:{variant}") == recipe(variant, "cnn")


# A convolutional network, one of a named encoder, one of two branches and a transformer; the others take half a minute,
# and tests/test_models.py has a small network of each kind.
FULL = ("deeplabv3plus", "pidnet", "segformer", "unet")


@pytest.mark.parametrize("name", some_slow(EXPERIMENTS, set(EXPERIMENTS) - set(FULL)))
def test_every_network_of_full_size_fits_together(name):
    config = command.load_experiment(f"experiments/{name}.py:voc")
    model = build.make_model(config, 21)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    (logits, _), variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    assert logits.shape[:3] == (1, 64, 64) and variables["params"]


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["camvid", "folder", "voc"])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_step_of_every_network_of_full_size_can_be_traced(name, variant):
    check(command.load_experiment(f"experiments/{name}.py:{variant}"))


# As few layers as keep every kind of part in the network: compiling them is what takes the time.
WIDTHS = {"cnn": (4, 4), "dpt": (4, 4, 4, 4), "encoder_decoder": (4, 4), "nnunet": (4, 4, 4, 4, 4), "unet": (4, 4, 4)}
LAYERS = {"generator": {"size": 8, "width": 4}, "fc_densenet": {"layers": (1, 2, 1)}, "mask2former": {"layers": 1}}
LAYERS["u2net"] = {"mids": (4, 4, 4), "heights": (2, 2)}


def shrunk(name, args):
    """The arguments of the network `name` with fewer and narrower layers."""
    args = args | (LAYERS[name] if name in LAYERS else {})
    if "anneal_end" in args:  # of hundreds of steps
        args |= {"anneal_start": 0, "anneal_end": 1}
    if name in WIDTHS or "widths" in args:
        args["widths"] = WIDTHS[name] if name in WIDTHS else (4, 4, 4)
    if "encoder_args" in args:
        encoder = dict(args["encoder_args"])
        if args["encoder"] in ("plain", "residual"):
            layers = "convs" if args["encoder"] == "plain" else "blocks"
            encoder |= {layers: 1, "widths": encoder["widths"][:3]}
        if "depths" in encoder:
            encoder["depths"] = (1,) * len(encoder["depths"])
        if "modules" in encoder:
            encoder |= {"blocks": 1, "modules": (1,) * len(encoder["modules"])}
        if "rows" in encoder:  # the first two of another kind or stride, and the last
            encoder["rows"] = (*encoder["rows"][0:3:2], encoder["rows"][-1])
        args["encoder_args"] = encoder
    return args


@pytest.fixture
def plain_weights(monkeypatch):
    """Waves in place of random kernels, which are a third of what there is to compile; one step learns nothing."""
    param = nn.Module.param

    def waves(key, shape, dtype=jnp.float32):
        return 0.1 * jnp.cos(jnp.arange(math.prod(shape), dtype=dtype)).reshape(shape)

    def plain(self, name, init_fn, *args, **options):
        return param(self, name, waves if init_fn is he_normal else init_fn, *args, **options)

    monkeypatch.setattr(nn.Module, "param", plain)


# One of each kind; tests of their own train the others, and tests/test_models.py has the gradients of every network.
QUICK = ("autoencoder", "resunet")
SLOW = [(name, "shapes") for name in EXPERIMENTS if name not in QUICK]
SLOW += [("resunet", variant) for variant in ("camvid", "folder", "voc")]


# Those whose step has parts that others lack, and some networks of parts of their own. Where a step is trained below,
# it is traced there; the step of the others is that of `resunet` around another network.
TRACED = ("adversarial", "distillation", "encnet", "generator", "linear_head", "mask2former", "multilabel", "pidnet")
TRACED += ("quantised", "semi", "weak_labels")


@pytest.mark.parametrize("name", some_slow(EXPERIMENTS, set(EXPERIMENTS) - set(TRACED)))
def test_every_experiment_has_a_step_that_can_be_traced(name):
    check(shrunk_run(name, "shapes"))


@pytest.mark.parametrize(
    ("name", "variant"),
    [*((name, "shapes") for name in QUICK), *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW)],
)
def test_every_experiment_trains_a_shrunk_step(tmp_path, plain_weights, name, variant):
    result = train(shrunk_run(name, variant), tmp_path, "x")
    assert result.images == 8 and np.isfinite(result.loss)


def shrunk_run(name, variant):
    """The configuration of an experiment for one step of small images."""
    config = command.load_experiment(f"experiments/{name}.py:{variant}")
    crop = (16, 16) if config.augment.crop else ()
    update(
        config,
        data__source="shapes",
        data__size=(24, 20),
        augment__crop=crop,
        data__shapes_train=8,
        data__shapes_val=8,
        steps=1,
        batch_size=8,
        eval__batch_size=8,
        schedule__warmup=0,
        log__tensorboard=False,
        log__images=0,
        compile__options=FAST_COMPILE,
        model__args=shrunk(name, config.model.args.to_dict()),
    )
    if config.semi.method:
        update(config, data__labelled="1/2", data__labelled_rows=4, semi__ramp_up=0)
    return config


@pytest.mark.slow
def test_first_command_reaches_what_the_readme_promises(tmp_path):
    """The README's first command, as it stands: validation mIoU of at least .90 on the shapes data."""
    assert main(["--config", "experiments/resunet.py", "--workdir", str(tmp_path / "run")]) == 0
    assert read_log(tmp_path / "run" / "log.jsonl")[-1]["mean_iou"] >= 0.90
