"""Compiler options by backend and by configuration, and the cache of compiled programs on disk."""

import json
import os
import pwd
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src import compilation_cache

from jaxseg import compiler, parallel
from jaxseg.config import default_config, update, validate
from jaxseg.errors import ConfigError
from jaxseg.nn.ops.forms import convolution_forms
from jaxseg.run.provenance import read_starts, run_record
from jaxseg.run.workdir import prepare_workdir

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture
def no_cache(monkeypatch):
    """Clears the user's cache setting for one test."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_options_are_those_of_the_backend():
    assert compiler.compiler_options() == compiler.OPTIONS["cpu"]
    assert not compiler.calls_onednn(compiler.OPTIONS["cpu"])


def test_onednn_comes_with_jax_0_12_for_those_who_ask():
    asked = compiler.compiler_options({compiler.ONEDNN: True})
    assert asked == compiler.OPTIONS["cpu"] | {compiler.ONEDNN: True}
    has = compiler.calls_onednn(asked)
    version = tuple(int(part) for part in jax.__version__.split(".")[:2])
    if version in ((0, 10), (0, 12)):
        assert has == (version == (0, 12))
    assert compiler.forms_for(compiler.OPTIONS["cpu"]) == ("strips" if has else "usual")
    assert compiler.forms_for(asked) == ("onednn" if has else "usual")


@pytest.mark.parametrize(
    ("called", "installed", "forms"),
    [(False, False, "usual"), (False, True, "strips"), (True, True, "onednn")],
)
def test_a_function_is_traced_for_its_options(monkeypatch, called, installed, forms):
    monkeypatch.setattr(compiler, "calls_onednn", lambda options: called)
    monkeypatch.setattr(compiler, "_has_onednn", lambda: installed)
    traced = []

    def double(x, *, times):
        traced.append(convolution_forms())
        return times * x

    assert compiler.jit(double, {}, static_argnames="times")(3.0, times=2) == 6.0
    assert traced == [forms]
    assert convolution_forms() == "usual"


def test_a_program_that_runs_once_has_the_same_bits(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS")  # which sets the option for all programs of the tests

    def draw(key):
        keys = jax.random.split(key)
        return jax.random.truncated_normal(keys[0], -2.0, 2.0, (3, 3, 4, 8)), jax.random.normal(keys[1], (7, 5))

    key = jax.random.key(0)
    assert compiler.options_for_once()
    once = jax.jit(draw, compiler_options=compiler.options_for_once())(key)
    usually = jax.jit(draw, compiler_options={"xla_backend_optimization_level": 3})(key)
    for quick, usual in zip(once, usually, strict=True):
        np.testing.assert_array_equal(quick, usual)


def test_what_xla_flags_sets_has_precedence(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/tmp/x --xla_backend_optimization_level=2")
    assert compiler.options_for_once() == {}
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/tmp/xla_backend_optimization_level")
    assert compiler.options_for_once() == {"xla_backend_optimization_level": 1}


def test_changes_replace_add_and_drop_options():
    name = "xla_cpu_experimental_ynn_fusion_type"
    assert compiler.compiler_options({each: None for each in compiler.OPTIONS["cpu"]}) == {}
    given = {name: "LIBRARY_FUSION_TYPE_REDUCE", "xla_cpu_enable_fast_min_max": True}
    assert compiler.compiler_options(given) == compiler.OPTIONS["cpu"] | given


def test_an_option_unknown_to_this_version_is_left_out(monkeypatch):
    known = compiler.OPTIONS["cpu"]
    monkeypatch.setitem(compiler.OPTIONS, "cpu", compiler.OPTIONS["cpu"] | {"xla_of_the_future": 1})
    compiler._known_options.cache_clear()
    try:
        assert compiler.compiler_options() == known
    finally:
        compiler._known_options.cache_clear()


@pytest.mark.parametrize("changes", [{"xla_cpu_enable_fast_mats": True}, {"xla_cpu_enable_fast_min_max": "perhaps"}])
def test_a_wrong_option_is_named(changes):
    (name,) = changes
    with pytest.raises(ConfigError, match=rf"compile\.options=.*{name}"):
        parallel.make_strategy("jit", {}, options=changes)


def test_the_strategy_compiles_with_its_options(monkeypatch):
    strategy = parallel.make_strategy("jit", {}, options={"xla_cpu_enable_fast_min_max": True})
    given = []
    monkeypatch.setattr(compiler, "_try", lambda options: None)
    monkeypatch.setattr(compiler, "forms_for", lambda options: "usual")
    monkeypatch.setattr(jax, "jit", lambda function, *, compiler_options, **_: given.append(compiler_options))
    strategy.compile_train(None)
    strategy.compile_eval(None)
    assert given == [compiler.OPTIONS["cpu"] | {"xla_cpu_enable_fast_min_max": True}] * 2


def test_pmap_says_that_remat_saves_nothing(caplog):
    parallel.make_strategy("pmap", {}).compile_train(lambda state, batch, key: (state, batch), remat=True)
    assert "remat saves no memory on a CPU under strategy=pmap" in caplog.text


def test_pmap_takes_no_options():
    with pytest.raises(ConfigError, match=r"compile\.options needs strategy=jit"):
        parallel.make_strategy("pmap", {}, options={"xla_cpu_enable_fast_min_max": True})


@pytest.mark.parametrize("strategy", ["jit", "pmap"])
def test_the_record_of_a_run_holds_its_options(tmp_path, strategy):
    config = default_config()
    update(config, strategy=strategy)
    if strategy == "jit":
        update(config, compile__options={"xla_cpu_enable_fast_min_max": True})
    validate(config)
    run_record(prepare_workdir(tmp_path, config), config)
    expected = {**compiler.OPTIONS["cpu"], "xla_cpu_enable_fast_min_max": True} if strategy == "jit" else {}
    start = read_starts(tmp_path)[-1]
    assert start["compiler_options"] == expected
    assert start["convolutions"] == (compiler.forms_for(expected) if expected else "usual")
    assert start["attention"] == "usual: cuDNN has no attention in float32"


def test_a_setting_of_the_users_own_is_kept(tmp_path, no_cache):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    assert compiler.keep_programs(str(tmp_path / "ours")) == tmp_path / "mine"
    assert not (tmp_path / "ours").exists()


def test_off_keeps_nothing(no_cache):
    assert compiler.keep_programs("off") is None
    assert jax.config.jax_compilation_cache_dir is None


def test_a_second_process_finds_what_the_first_compiled(tmp_path, no_cache, monkeypatch):
    monkeypatch.setattr(compiler, "_CACHE_SECONDS", 0.0)
    events = []
    jax.monitoring.register_event_listener(lambda event, **_: events.append(event))

    def hits() -> int:
        jax.clear_caches()
        compilation_cache.reset_cache()
        events.clear()
        jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((3, 3)))
        return events.count("/jax/compilation_cache/cache_hits")

    folder = compiler.keep_programs(str(tmp_path))
    assert folder.parent == tmp_path and folder.name.startswith("cpu-")
    assert hits() == 0
    assert list(folder.glob("*-cache"))
    assert hits() > 0


def test_by_default_programs_are_kept_at_home(tmp_path, no_cache, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compiler.keep_programs().parent == tmp_path / ".cache" / "jaxseg" / "xla"


@pytest.mark.skipif(os.name != "posix", reason="file as a folder")
def test_a_folder_that_cannot_be_written_costs_a_note(tmp_path, no_cache, caplog):
    (tmp_path / "file").write_text("")
    assert compiler.keep_programs(str(tmp_path / "file")) is None
    assert "compiled programs are not kept" in caplog.text
    assert jax.config.jax_compilation_cache_dir is None


def test_without_a_home_folder_nothing_is_kept_and_a_note_says_so(no_cache, monkeypatch, caplog):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    assert compiler.keep_programs() is None
    assert "compiled programs are not kept: there is no home folder; compile.cache=DIR names another" in caplog.text


def test_other_processors_have_folders_of_their_own(monkeypatch):
    mine = compiler._machine()
    monkeypatch.setattr(compiler, "_cpu_info", lambda field: f"another {field}")
    assert compiler._machine() != mine


def test_a_resumed_run_may_differ_in_both_keys(tmp_path):
    config = default_config()
    prepare_workdir(tmp_path, config)
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    update(config, compile__cache="off", compile__options={"xla_cpu_enable_fast_min_max": True})
    prepare_workdir(tmp_path, config)
    stored = json.loads((Path(tmp_path) / "config.json").read_text())
    assert stored["compile"]["cache"] == "off"
    assert stored["compile"]["options"] == {"xla_cpu_enable_fast_min_max": True}
