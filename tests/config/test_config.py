"""The configuration: types, unknown names, overrides, round trips through JSON."""

import copy
import io
import json
import pickle
import subprocess
import sys

import jax
import pytest

from jaxseg import models
from jaxseg.arguments import check_value
from jaxseg.config import (
    KEYS,
    ConfigDict,
    command,
    default_config,
    differences,
    flatten,
    from_dict,
    parse_arg,
    set_key,
    to_dict,
    update,
    validate,
    with_values,
)
from jaxseg.config.schema import FORMAT, RENAMED
from jaxseg.errors import ConfigError, JaxsegError


def test_every_key_has_a_default_a_meaning_and_a_place():
    flat = flatten(default_config())
    assert set(flat) == set(KEYS)
    assert all(key.meaning for key in KEYS.values())
    assert "--config.schedule.warmup=0" in command.help_text()


@pytest.mark.parametrize(
    ("argument", "key", "value"),
    [
        ("--config.data.size=(128,96)", "data.size", (128, 96)),
        ("--config.data.size=128,96", "data.size", (128, 96)),
        ("--config.augment.crop=()", "augment.crop", ()),
        ("--config.data.classes=cat,dog", "data.classes", ("cat", "dog")),
        ("--config.data.classes=0,1", "data.classes", ("0", "1")),
        ("--config.data.classes=('a b','c')", "data.classes", ("a b", "c")),
        ("--config.data.classes=()", "data.classes", ()),
        ("--config.data.std=(1,)", "data.std", (1.0,)),
        ("--config.augment.zoom=1,2", "augment.zoom", (1.0, 2.0)),
        ("--config.data.mean=0.5", "data.mean", (0.5,)),
        ("--config.data.dir=7", "data.dir", "7"),
        ("--config.log.tensorboard=false", "log.tensorboard", False),
        ("--config.ema.decay=0", "ema.decay", 0.0),
        ("--config.data.palette=((0,0,0),(255,0,0))", "data.palette", ((0, 0, 0), (255, 0, 0))),
        ("--config.model.args.widths=(8,16)", "model.args.widths", (8, 16)),
        ("--config.model.args.separable=true", "model.args.separable", True),
        ("--config.compile.options.xla_cpu_enable_fast_math=False", "compile.options.xla_cpu_enable_fast_math", False),
    ],
)
def test_override_has_the_type_of_its_key(argument, key, value):
    config = default_config()
    command.parse_overrides(config, [argument])
    assert flatten(config)[key] == value
    assert type(flatten(config)[key]) is type(value)


def test_override_may_stand_in_the_next_word():
    config = default_config()
    command.parse_overrides(config, ["--config.seed", "3", "--config.data.dir", "x"])
    assert (config.seed, config.data.dir) == (3, "x")


ENCODER = "--config.model.args.encoder"


@pytest.mark.parametrize(
    ("arguments", "encoder_args", "dropped"),
    [
        ([f"{ENCODER}=convnext_tiny"], None, "(blocks=2, widths=(24, 48, 96))"),
        ([f"{ENCODER}=mit_b0", f"{ENCODER}_args.widths=(4,6)"], {"widths": (4, 6)}, "(blocks=2)"),
        ([f"{ENCODER}_args.widths=(4,6)", ENCODER, "mit_b0"], {"widths": (4, 6)}, "(blocks=2)"),
        (
            [f"{ENCODER}_args.widths=(4,)", f"{ENCODER}_args.blocks=1", f"{ENCODER}=plain"],
            {"widths": (4,), "blocks": 1},
            None,
        ),
        ([f"{ENCODER}=plain", ENCODER + "_args={'convs': 1}"], {"convs": 1}, None),
        ([f"{ENCODER}=residual"], {"widths": (24, 48, 96), "blocks": 2}, None),
        ([f"{ENCODER}=plain", f"{ENCODER}=residual"], {"widths": (24, 48, 96), "blocks": 2}, None),
        ([f"{ENCODER}_args.blocks=1"], {"widths": (24, 48, 96), "blocks": 1}, None),
    ],
)
def test_another_encoder_drops_the_encoder_args_of_the_experiment(caplog, arguments, encoder_args, dropped):
    config = command.load_experiment("experiments/deeplabv3plus.py")
    command.parse_overrides(config, arguments)
    args = config.model.args.to_dict()
    assert (args["encoder_args"] if "encoder_args" in args else None) == encoder_args
    assert args["rates"] == (2, 4, 6)  # what is not the encoder's stays
    said = (
        []
        if dropped is None
        else [
            f"model.args.encoder_args of the experiment {dropped} belong to its encoder residual and are dropped for "
            f"{args['encoder']}"
        ]
    )
    assert caplog.messages == said


def test_a_note_is_printed_once(capsys):
    def twice():
        for _ in range(2):
            config = command.load_experiment("experiments/upernet.py")
            command.parse_overrides(config, [f"{ENCODER}=convnext_tiny"])
        return 0

    assert command.run_command(twice) == 0
    error = capsys.readouterr().err
    assert error.startswith("note: model.args.encoder_args") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.modle.name=unet", "Did you mean 'model.name'"),
        ("--config.data.sise=(1,2)", "Did you mean 'data.size'"),
        ("--config.seed=a", "seed must be a whole number"),
        ("--config.seed=1.5", "seed must be a whole number"),
        ("--config.log.tensorboard=maybe", "must be True or False"),
        ("--config.data=3", "no config key 'data'"),
        ("--config.optimizer.lr=0.1", "no config key 'optimizer.lr'. Did you mean 'optimizer.learning_rate'?"),
        ("--config.model.encoder=vgg16", r"no config key 'model.encoder'\..* are set as model.args.NAME\.$"),
        ("--config.seed", "needs a value"),
        ("--stesp=3", "Unknown argument '--stesp=3'"),
        ("--config.model.args=3", "model.args must be a dictionary"),
        ("--config.model.args.=3", "no config key 'model.args.'"),
        ("--config.augment.zoom=a,b", r"augment.zoom must be \(low, high\) with 0 < low <= high, got \('a', 'b'\)"),
        (
            "--config.schedule.boundaries=a,b",
            r"schedule.boundaries must be ascending whole numbers of at least 1, got \('a', 'b'\)",
        ),
        (
            "--config.schedule.boundaries=1.5,2",
            r"schedule.boundaries must be ascending whole numbers of at least 1, got \(1.5, 2\)",
        ),
        ("--config.data.std=a", "data.std must be a tuple of numbers above 0"),
        ("--config.remat=some", "remat must be True or False, got .some."),
        ("--config.data.size=(True,2)", r"data.size must be \(height, width\) in whole pixels"),
        ("--config.data.palette=((0,0),)", "data.palette must be a tuple of colours"),
        ("--config.data.palette=((0,0,256),)", "data.palette must be a tuple of colours"),
        ("--config.data.palette=0,0,0", "data.palette must be a tuple of colours"),
    ],
)
def test_wrong_key_or_type_is_one_sentence(argument, message):
    with pytest.raises(ConfigError, match=message):
        command.parse_overrides(default_config(), [argument])


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (("--config.sed=1", "--config.model.nam=unet"), ("no config key 'sed'", "no config key 'model.nam'")),
        (("--config.seed=a", "--config.remat=some"), ("seed must be a whole", "remat must be True or False")),
    ],
)
def test_several_wrong_keys_or_types_give_one_line_each(arguments, lines):
    with pytest.raises(ConfigError) as caught:
        command.parse_overrides(default_config(), arguments)
    assert [part in line for part, line in zip(lines, str(caught.value).split("\n"), strict=True)] == [True, True]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("strategy", "jti", "Did you mean 'jit'"),
        ("schedule.name", "cosin", "Did you mean 'cosine'"),
        ("steps", 0, "steps must be a whole number of at least 1"),
        ("data.size", (64,), r"data.size must be \(height, width\)"),
        ("augment.crop", (128, 128), "larger than data.size"),
        ("augment.zoom", (2.0, 1.0), "augment.zoom must be"),
        ("augment.zoom", (1.0,), "augment.zoom must be"),
        ("data.channels", 0, "data.channels must be a whole number of at least 1"),
        ("data.channels", 2, "data.channels=2 needs data.source=folder, got data.source=shapes"),
        ("data.mean", (0.1, 0.2), "data.mean has 2 numbers"),
        (
            "data.channels",
            4,
            "data.mean has 3 numbers and data.std has 3 numbers; with data.channels=4 give --config.data.mean=NUMBER "
            "--config.data.std=NUMBER, or 4 numbers for each",
        ),
        ("data.std", (0.0,), "data.std must be a tuple of numbers above 0"),
        ("data.mean", (123.675, 116.28, 103.53), r"data.mean has 123.675.*123.675 becomes 0.485"),
        ("data.mean", (-0.1,), "data.mean has -0.1"),
        ("data.std", (58.395, 57.12, 57.375), r"data.std has 58.395.*58.395 becomes 0.229"),
        ("data.mean", (float("nan"),), "data.mean must be a tuple of finite numbers"),
        ("seed", 2**70, r"seed must be a whole number in \[0, 4294967295\]"),
        ("seed", -1, "seed must be a whole number in"),
        ("data.ignore", 70000, r"data.ignore must be a whole number in \[-1, 65535\]"),
        ("data.ignore", -5, r"data.ignore must be a whole number in \[-1, 65535\]"),
        ("augment.flip_horizontal", 1.5, r"must be a number in \[0, 1\]"),
        ("loss.label_smoothing", 1.0, "label_smoothing"),
        ("ema.decay", 1.0, "ema.decay"),
        ("optimizer.learning_rate", float("nan"), "must be a number above 0"),
        ("optimizer.learning_rate", 0.0, "learning_rate must be a number above 0"),
        ("schedule.warmup", 1000, "schedule.warmup"),
        ("accumulate", 3, "not divisible by accumulate"),
        ("model.num_classes", -1, "model.num_classes"),
        ("data.val_fraction", 0.0, "data.val_fraction"),
        ("optimizer.clip", -1.0, "optimizer.clip"),
    ],
)
def test_wrong_value_is_one_sentence(key, value, message):
    config = default_config()
    set_key(config, key, value)
    with pytest.raises(ConfigError, match=message):
        validate(config)


def test_key_below_a_value_is_refused():
    config = default_config()
    set_key(config, "model.args", {"widths": (4, 8)})
    with pytest.raises(ConfigError, match=r"model.args.widths is \(4, 8\).*model.args.widths.x cannot be set"):
        set_key(config, "model.args.widths.x", 3)


@pytest.mark.parametrize("value", [print, {"a": print}, (print,)])
def test_arguments_hold_only_what_json_holds(value):
    with pytest.raises(ConfigError, match="holds only names"):
        set_key(default_config(), "model.args.norm", value)
    with pytest.raises(ConfigError, match="holds only names"):
        set_key(default_config(), "model.args", {"norm": value})


EXPERIMENT = """from jaxseg.config import *
def get_config(arg=None):
    c = default_config()
    {}
    return c
"""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("c.stepz = 3", "line 4 (c.stepz = 3): there is no config key 'stepz'. Did you mean 'steps'?"),
        ("c.data.sise = (1, 2)", "no config key 'sise'. Did you mean 'size'?"),
        ("c.dta.size = (1, 2)", "no config key 'dta'. Did you mean 'data'?"),
        ("c['dta']['size'] = (1, 2)", "no config key 'dta'. Did you mean 'data'?"),
        (
            "c.data.size = 64",
            "line 4 (c.data.size = 64): the config key 'size' must have a value like (64, 64), got 64.",
        ),
        ("c.data = 64", "the config key 'data' is a group of keys, got 64."),
        (
            "c.data.size = ('a', 'b')",
            "in whole pixels, such as (64, 64), got ('a', 'b')",
        ),
        ("c.unlock(); c.stepz = 3", "There is no config key 'stepz'. Did you mean 'steps'?"),
        ("c = ConfigDict({'steps': 3})", "must start from default_config(); it lacks the key seed"),
        (
            "c.model.args.norm = print",
            "model.args.norm is of type builtin_function_or_method; a config holds only names",
        ),
        ("update(c, stepz=3)", "There is no config key 'stepz'. Did you mean 'steps'?"),
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'."),
        ("1 / 0", "line 4 (1 / 0): ZeroDivisionError: division by zero."),
        ("{}['a']", "KeyError: 'a'"),
        ("assert False", "AssertionError."),
        ("return None", "must return a ConfigDict, got NoneType"),
        ("return {}", "must return a ConfigDict, got dict"),
    ],
)
def test_error_in_an_experiment_is_one_sentence(tmp_path, line, message):
    path = tmp_path / "experiment.py"
    path.write_text(EXPERIMENT.replace("{}", line, 1))
    with pytest.raises(ConfigError) as caught:
        command.load_experiment(str(path))
    assert message in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_experiment_without_argument_or_with_numbers_of_another_type(tmp_path):
    path = tmp_path / "experiment.py"
    path.write_text("def get_config():\n    return 1\n")
    with pytest.raises(ConfigError, match=r"must take one argument: def get_config\(arg=None\)"):
        command.load_experiment(str(path))
    path.write_text(
        EXPERIMENT.replace(
            "{}", "c.data.mean = [0, 1, 0.5]; c.model.args.widths = (1, 2); c.eval.every = c.get_ref('steps')"
        )
    )
    config = command.load_experiment(str(path))
    assert config.data.mean == (0.0, 1.0, 0.5) and config.model.args.widths == (1, 2)
    set_key(config, "steps", 7)
    assert config.eval.every == 7  # references outlive the check


class Known(JaxsegError):
    pass


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (ConfigError("Wrong."), 1, "error: Wrong.\n"),
        (Known("Wrong."), 1, "error: Wrong.\n"),
        (
            OSError(28, "No space left on device", "a.txt"),
            1,
            "error: a.txt could not be read or written: No space left on device.\n",
        ),
        (OSError("odd"), 1, "error: A file could not be read or written: odd.\n"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
    ],
)
def test_run_command_says_errors_in_one_line(capsys, error, status, text):
    def body():
        raise error

    assert command.run_command(body) == status
    assert capsys.readouterr().err == text


def test_run_command_leaves_success_and_bugs_alone():
    assert command.run_command(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        command.run_command(lambda: 1 // 0)


def test_round_trip_through_json_and_differences():
    config = default_config()
    update(config, data__palette=((0, 0, 0), (255, 0, 0)), model__args={"widths": (4, 8)}, data__dir="here")
    again = from_dict(json.loads(json.dumps(to_dict(config))))
    assert differences(config, again) == []
    assert again.data.palette == ((0, 0, 0), (255, 0, 0))
    set_key(again, "seed", 1)
    set_key(again, "data.dir", "moved")  # where the data lies changes no number
    set_key(again, "model.args.norm", "group")
    assert differences(config, again) == ["model.args.norm: unset -> group", "seed: 0 -> 1"]


def test_from_dict_of_another_version():
    values = to_dict(default_config())
    values["steps"] = 7
    del values["seed"], values["loss"]["aux_weights"]
    assert to_dict(from_dict(values)) == {**to_dict(default_config()), "steps": 7}  # younger keys have their defaults
    with pytest.raises(ConfigError, match="no config key 'seeed'"):
        from_dict({**to_dict(default_config()), "seeed": 1})


def test_keys_of_stored_runs_that_have_other_names_by_now():
    assert set(RENAMED.values()) <= set(KEYS) and not set(RENAMED) & set(KEYS)
    config = default_config()
    stored = to_dict(config)
    for i, (old, new) in enumerate(RENAMED.items()):
        (section, leaf), value = new.split("."), 0.3 + 0.1 * i
        del stored[section][leaf]
        stored[section][old.split(".")[1]] = value
        update(config, **{new.replace(".", "__"): value})
    assert to_dict(from_dict(stored)) == to_dict(config)


@pytest.mark.parametrize(
    ("name", "encoder", "given", "written"),
    [
        ("deeplabv3", "resnet50", {"output_stride": 8}, {"multi_grid": (1, 1, 1), "first_dilated": False}),
        ("deeplabv3plus", "seresnet50", {"multi_grid": (1, 2, 4)}, {"first_dilated": False}),
        ("deeplabv3", "mit_b0", None, None),
        ("fcn", "vgg13_bn", {"levels": "pooled"}, {}),
        ("fcn", "vgg16", None, {"levels": "convolved"}),
        ("lraspp", "mobilenet_v3_small", None, {"tap": "last"}),
        ("ocrnet", "hrnet_w18", None, {"upsample": "nearest"}),
        ("ocrnet", None, {"upsample": "nearest"}, {}),
        ("unet", "resnet50", None, None),
    ],
)
def test_a_stored_run_keeps_the_encoder_that_it_had(name, encoder, given, written):
    """Before form 2 a network's needs of its encoder held for its default only."""
    args = ({} if encoder is None else {"encoder": encoder}) | ({} if given is None else {"encoder_args": given})
    config = default_config()
    update(config, model__name=name, model__args=args)
    stored = json.loads(json.dumps(to_dict(config)))
    assert differences(from_dict(stored), config) == []
    del stored["format"]
    expected = None if given is None and written is None else (given or {}) | (written or {})
    read = from_dict(stored).model.args
    assert (read.encoder_args.to_dict() if "encoder_args" in read else None) == expected
    validate(from_dict(stored))
    models.build(name, num_classes=2, **read.to_dict())  # the fields are those of the encoder


@pytest.mark.parametrize("form, given, read", [(4, {}, False), (4, {"output_norm": True}, True), (5, {}, None)])
def test_a_stored_run_keeps_its_residual_encoder_without_norms_behind_the_levels(form, given, read):
    config = default_config()
    update(
        config,
        model__name="fpn",
        model__args={"finest": 1, "encoder": "residual", "encoder_args": {"widths": (4, 8), **given}},
    )
    stored = json.loads(json.dumps(to_dict(config))) | {"format": form}
    args = from_dict(stored).model.args
    assert args.encoder_args.to_dict() == {"widths": (4, 8)} | ({} if read is None else {"output_norm": read})
    model = models.build("fpn", num_classes=2, **args.to_dict())
    params = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 8, 8, 3), "float32"))["params"]
    assert sorted(params["encoder"]) == [*(["norm0", "norm1"] if read is not False else []), "stage0", "stage1"]


def test_a_configuration_of_a_newer_form_is_refused():
    with pytest.raises(ConfigError, match=f"has the form {FORMAT + 1}; this jaxseg reads the forms 1 to {FORMAT}"):
        from_dict(to_dict(default_config()) | {"format": FORMAT + 1})


@pytest.mark.parametrize(
    "form, source, division", [(2, "folder", "former"), (2, "shapes", "stable"), (3, "folder", "stable")]
)
def test_a_stored_run_keeps_the_division_of_its_folder(form, source, division):
    config = default_config()
    update(config, data__source=source)
    stored = json.loads(json.dumps(to_dict(config)))
    if form < 3:
        del stored["data"]["division"]
    assert from_dict(stored | {"format": form}).data.division == division


def test_variant_and_experiment_files(tmp_path):
    assert parse_arg(None, ("a", "b")) == "a"
    with pytest.raises(ConfigError, match="Did you mean 'camvid'"):
        parse_arg("canvid", ("shapes", "camvid"))
    with pytest.raises(ConfigError, match=r"Did you mean 'experiments/resunet\.py'"):
        command.load_experiment("experiments/resnet.py")
    with pytest.raises(ConfigError, match=r"Did you mean 'experiments/unet\.py'"):
        command.load_experiment("unet")
    empty = tmp_path / "empty.py"
    empty.write_text("x = 1\n")
    with pytest.raises(ConfigError, match="defines no get_config"):
        command.load_experiment(str(empty))
    broken = tmp_path / "broken.py"
    broken.write_text("def get_config(:\n")
    with pytest.raises(ConfigError, match=r"broken\.py.*line 1"):
        command.load_experiment(str(broken))
    text = tmp_path / "notes.txt"
    text.write_text("x")
    with pytest.raises(ConfigError, match="not a Python file"):
        command.load_experiment(str(text))


def test_help_lists_the_keys_without_loading_a_model():
    code = (
        "import sys, runpy\nsys.argv=['jaxseg.train','--help']\n"
        "try: runpy.run_module('jaxseg.train', run_name='__main__')\nexcept SystemExit as e: sys.exit(e.code)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--config.optimizer.learning_rate=0.001" in result.stdout
    assert "peak learning rate" in result.stdout


def test_a_config_dict_of_another_origin_is_read(tmp_path):
    path = tmp_path / "experiment.py"
    path.write_text(
        "import ml_collections\nfrom jaxseg.config import default_config\ndef get_config(arg=None):\n"
        "    c = ml_collections.ConfigDict(default_config().to_dict())\n"
        "    c.model.args = ml_collections.ConfigDict({'widths': (4, 8), 'encoder_args': {'blocks': 1}})\n"
        "    return c\n"
    )
    config = command.load_experiment(str(path))
    assert flatten(config)["model.args.encoder_args.blocks"] == 1
    command.parse_overrides(config, ["--config.model.args.encoder_args.blocks=2", "--config.steps=7"])
    assert (config.model.args.encoder_args.blocks, config.steps) == (2, 7)
    with pytest.raises(ConfigError, match="Did you mean 'steps'"):
        config.stesp = 3


def test_a_configuration_answers_as_a_config_dict_and_a_mapping_do():
    """`hasattr`, `get`, copies and the errors of plain ConfigDicts work, besides the sentences."""
    config = default_config()
    assert not hasattr(config, "stesp") and config.get("stesp", 3) == 3
    with pytest.raises(KeyError, match=r"^There is no config key 'stesp'\. Did you mean 'steps'"):
        config["stesp"]
    with pytest.raises(AttributeError, match=r"no config key 'sise'\. Did you mean 'size'"):
        config.data.sise = (1, 2)
    with pytest.raises(TypeError, match=r"'size' must have a value like \(64, 64\), got 64"):
        config.data.size = 64
    for other in (copy.deepcopy(config), pickle.loads(pickle.dumps(config)), config.copy_and_resolve_references()):
        assert to_dict(other) == to_dict(config) and other.is_locked
    args = ConfigDict({"a": {"b": 1}})
    assert isinstance(args.a, ConfigDict) and args["a.b"] == 1
    with pytest.raises(ConfigError, match="no config key 'c'"):
        args["a.c"]


def test_help_says_what_a_value_must_be():
    text = command.help_text()
    assert "[one of 'jit', 'pmap']" in text and "[a number in [0, 1)]" in text


def test_every_default_is_valid_by_itself():
    for name, key in KEYS.items():
        assert check_value(name, key.default, key.hint) == key.default
    validate(default_config())


def test_a_console_without_the_letters_of_a_name_gets_their_codes(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert command.run_command(lambda: print("caf\u00e9 \udce9", flush=True) or 0) == 0
    assert raw.getvalue() == b"caf\\xe9 \\udce9\n"


def test_a_copy_with_other_values_leaves_the_configuration_as_it_was():
    config = default_config()
    other = with_values(config, {"schedule.warmup": 7, "remat": True})
    assert differences(config, other) == ["remat: False -> True", "schedule.warmup: 0 -> 7"]
    assert config == default_config()
    with pytest.raises(ConfigError, match=r"schedule\.warmup"):
        with_values(config, {"schedule.warmup": "many"})
