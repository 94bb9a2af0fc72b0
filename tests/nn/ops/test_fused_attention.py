"""cuDNN's attention: which programs call it, what asks for it, and what JAX's transformations make of the call.

No test runs cuDNN: programs are lowered for CUDA and read, and on the CPU another function takes cuDNN's place.
"""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo
from jax.custom_batching import custom_vmap
from jax.sharding import Mesh, PartitionSpec

from jaxseg import compiler
from jaxseg.mesh import Axes, make_mesh
from jaxseg.nn import dot_product_attention
from jaxseg.nn.ops import fused_attention as fused
from jaxseg.nn.ops.dot_product import _attend
from jaxseg.nn.ops.forms import traced_for

FORWARD, BACKWARD = "__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"


def draw(*shape, seed=0, dtype="bfloat16"):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def tokens(queries=24, keys=16, width=8, dtype="bfloat16", images=2):
    return tuple(draw(images, n, 2, width, seed=i, dtype=dtype) for i, n in enumerate((queries, keys, keys, queries)))


def value_and_gradients(attention, *arrays):
    y, pull_back = jax.vjp(attention, *arrays[:3])
    return y, *pull_back(arrays[3])


@pytest.fixture
def a_gpu(monkeypatch):
    """This process takes itself for one with an NVIDIA GPU; nothing of it is asked but the version of its cuDNN."""
    monkeypatch.setattr(fused, "_on_cuda", lambda: True)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91300)
    forget = fused._answer.cache_clear
    forget()
    yield monkeypatch
    forget()


@pytest.fixture
def that_works(a_gpu):
    a_gpu.setattr(fused, "_answer", lambda *sizes: "")
    return a_gpu


def calls(*arrays, platform="cuda", **options):
    """How often attention with its gradients, as lowered for a platform, calls cuDNN: forward and backward."""
    attention = functools.partial(dot_product_attention, **options)
    program = jax.jit(lambda *arrays: value_and_gradients(attention, *arrays)).trace(*arrays)
    text = program.lower(lowering_platforms=(platform,)).as_text()
    found = [text.count(f"custom_call @{name}(") for name in (FORWARD, BACKWARD)]
    assert sum(found) == text.count("__cudnn$"), text
    return found


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_one_call_forward_and_one_backward(that_works, dtype):
    assert calls(*tokens(dtype=dtype, width=128)) == [1, 1]
    assert calls(*tokens(dtype=dtype), platform="cpu") == [0, 0]


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({"dtype": "float32"}, "cuDNN has no attention in float32"),
        ({"width": 12}, "the width of a head is no multiple of 8 up to 128, or not that of the values"),
        ({"width": 136}, "the width of a head is no multiple of 8 up to 128, or not that of the values"),
        ({"queries": 17}, "there are fewer than 16 queries or keys, or an odd number, of which jax takes no gradient"),
        ({"keys": 14}, "there are fewer than 16 queries or keys, or an odd number, of which jax takes no gradient"),
        ({"images": 0}, "a size is 0 or not known"),
    ],
)
def test_other_arrays_stay_as_they_are(that_works, sizes, reason):
    arrays = tokens(**sizes)
    assert fused.refusal(*arrays[:3]) == reason
    assert calls(*arrays) == [0, 0]


def test_masks_and_biases_stay_as_they_are(that_works):
    arrays = tokens()
    assert calls(*arrays, mask=jnp.ones((2, 1, 24, 16), bool)) == [0, 0]
    assert calls(*arrays, bias=jnp.zeros((2, 24, 16))) == [0, 0]


def test_it_can_be_turned_off(that_works):
    q, k, v, _ = tokens()
    assert fused.refusal(q, k, v) == ""
    assert fused.refusal(q, k, jnp.concatenate([v, v], -1)).endswith("not that of the values")
    for without in (traced_for("plain"), traced_for("usual", cudnn=False)):
        with without:
            assert fused.refusal(q, k, v) == "the program has to do without it"
            export = jax.export.export(jax.jit(dot_product_attention), platforms=["cpu", "cuda"])
            assert "__cudnn$" not in export(q, k, v).mlir_module()
    for flags in ("--xla_gpu_deterministic_ops=false", "--xla_gpu_autotune_level=0"):
        that_works.setenv("XLA_FLAGS", flags)
        assert fused.refusal(q, k, v) == ""
    for flags in ("--a=b --xla_gpu_deterministic_ops", "--xla_gpu_exclude_nondeterministic_ops=true --a=b"):
        that_works.setenv("XLA_FLAGS", flags)
        assert fused.refusal(q, k, v) == "the same bits are asked for in every run"
    that_works.setenv(fused.SWITCH, "off")
    assert fused.refusal(q, k, v) == "JAXSEG_CUDNN_ATTENTION=off"
    that_works.delenv(fused.SWITCH)
    that_works.setattr(jax, "process_count", lambda: 2)
    assert fused.refusal(q, k, v) == "there are several processes"
    that_works.setattr(fused, "_on_cuda", lambda: False)
    assert fused.refusal(q, k, v) == "there is no NVIDIA GPU"


@pytest.mark.parametrize("value", [True, False])
def test_the_options_of_a_program_decide(that_works, value):
    options = {"xla_gpu_deterministic_ops": value}
    program = compiler.jit(dot_product_attention, options).trace(*tokens()[:3])
    assert ("__cudnn$" in program.lower(lowering_platforms=("cuda",)).as_text()) is not value
    bits = "usual: the same bits are asked for in every run"
    assert compiler.attention_for(options, "bfloat16") == (bits if value else "cudnn, where its numbers are right")
    assert compiler.attention_for({}, "bfloat16", rows=True) == "usual: images are split by rows"
    assert compiler.attention_for(options, "float32") == "usual: cuDNN has no attention in float32"


def test_without_a_gpu_the_answer_is_no(monkeypatch):
    assert compiler.attention_for({}, "bfloat16") == "usual: there is no NVIDIA GPU"
    assert fused._ask("bfloat16", 64, 64, 64) == "RuntimeError: cuDNN is not detected."
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91300)
    assert "platform" in fused._ask("bfloat16", 64, 64, 64), "XLA cannot compile the call here"
    assert fused._ask("bfloat16", 64, 63, 64) == "NotImplementedError: Unsupported sequence length Q 64, KV 63."


def stand_in(wrong=1.0):
    """A function in cuDNN's place, with a gradient of its own, whose arrays `vmap` has to map all or none."""

    @custom_vmap
    def alike(*arrays):
        return arrays

    @alike.def_vmap
    def rule(size, mapped, *arrays):
        assert all(mapped)
        return alike(*arrays), tuple(mapped)

    @jax.custom_vjp
    def attention(*arrays):
        return _attend(*alike(*arrays))

    def forward(*arrays):
        y, saved = jax.vjp(_attend, *alike(*arrays))
        return y, (arrays, y, saved)

    def backward(saved, dy):
        _, _, _, _, dy = alike(*saved[0], saved[1], dy)
        dq, dk, dv = saved[2](dy)
        return dq * jnp.asarray(wrong, dq.dtype), dk, dv

    attention.defvjp(forward, backward)
    return attention


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_only_the_right_numbers_are_taken(a_gpu, caplog, dtype):
    a_gpu.setattr(fused, "_cudnn", stand_in())
    assert fused._answer(dtype, 64, 64, 64) == fused._answer(dtype, 50, 20, 8) == ""
    fused._answer.cache_clear()
    a_gpu.setattr(fused, "_cudnn", stand_in(wrong=1.05))
    answer = fused._answer(dtype, 64, 64, 64)
    assert answer.startswith(f"its dq in {dtype} differs by 0.0"), answer
    assert calls(*tokens(dtype=dtype)) == [0, 0]
    assert [each.levelname for each in caplog.records if "cuDNN is not used for 64 queries" in each.message]
    a_gpu.setattr(fused, "_cudnn", lambda q, k, v: v * jnp.nan)
    assert fused._ask(dtype, 16, 16, 8) == f"its result in {dtype} differs by nan of the largest value"


def test_it_is_asked_inside_of_any_trace(a_gpu):
    """The answer of the first call is computed while the program is traced, in a mesh; the numbers are a CPU's."""
    a_gpu.setattr(fused, "_cudnn", stand_in())
    asked, ask = [], fused._ask
    a_gpu.setattr(fused, "_ask", lambda *sizes: asked.append(sizes) or ask(*sizes))
    arrays = tokens(images=8)
    expected = jax.jit(functools.partial(value_and_gradients, _attend))(*arrays)
    ours = functools.partial(value_and_gradients, dot_product_attention)
    axes = PartitionSpec("data")
    mesh = Mesh(np.array(jax.devices()), ("data",))
    programs = (
        (jax.jit(jax.vmap(ours)), 1),
        (jax.jit(jax.shard_map(ours, mesh=mesh, in_specs=axes, out_specs=axes)), 0),
        (compiler.jit(ours, {}, make_mesh(Axes(), jax.devices())), 0),
    )
    for program, extra in programs:
        fused._answer.cache_clear()
        asked.clear()
        with jax.checking_leaks() if extra else contextlib.nullcontext():  # it takes seconds
            found = program(*(a[:, None] if extra else a for a in arrays))
        assert asked == [("bfloat16", 24, 16, 8)]
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(np.asarray(a, np.float32).reshape(b.shape), b.astype(np.float32))


def test_each_device_calls_it_for_its_own_images(that_works):
    """Where XLA divides images otherwise, or may do so, it is not called."""
    arrays = tokens(images=8)
    split = "an image may be split over devices"

    def refusal(mesh, count=8):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return fused.refusal(*(a[:count] for a in arrays[:3]))

    assert refusal(make_mesh(Axes(), jax.devices())) == refusal(make_mesh(Axes(4, 2, 1), jax.devices())) == ""
    assert (
        refusal(make_mesh(Axes(), jax.devices()), count=6) == refusal(make_mesh(Axes(2, 1, 4), jax.devices())) == split
    )
    assert refusal(Mesh(np.array(jax.devices()), ("mine",))) == split
    that_works.setattr(jax, "device_count", lambda: 8)
    assert fused.refusal(*arrays[:3]) == split, "the arrays may lie on several devices"
    that_works.setattr(fused, "_cudnn", stand_in())
    mesh = make_mesh(Axes(4, 2, 1), jax.devices())
    places = jax.sharding.NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    ours = compiler.jit(functools.partial(value_and_gradients, fused.fused_attention), {}, mesh)
    found = ours(*jax.device_put(arrays, places))
    for a, b in zip(found, value_and_gradients(_attend, *arrays), strict=True):
        assert a.sharding.is_equivalent_to(places, a.ndim)
        np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), atol=0.02)


def test_transformations_of_the_call_are_those_of_the_formula(that_works):
    """Two queries for one set of keys under `vmap`, in either order with the gradient, and derivatives twice."""
    that_works.setattr(fused, "_cudnn", stand_in())
    q, k, v, dy = tokens(dtype="float32")
    queries, direction = jnp.stack([q, 2 * q]), draw(*q.shape, seed=9, dtype="float32")

    def all_of(attention):
        def one(q, k):
            return value_and_gradients(attention, q, k, v, dy)

        def energy(q, k):
            return (attention(q, k, v) ** 4).sum()

        return (
            jax.vmap(lambda q: one(q, k))(queries),
            jax.vmap(lambda k: one(q, k), 1, 1)(jnp.stack([k, -k], 1)),
            jax.grad(lambda k: jax.vmap(lambda q: energy(q, k))(queries).sum())(k),
            jax.jvp(jax.grad(energy), (q, k), (direction, k)),
            jax.grad(lambda q: (jax.grad(energy, 1)(q, k) ** 2).sum())(q),
            jax.grad(jax.remat(energy))(q, k),
        )

    found, expected = (jax.tree.leaves(jax.jit(all_of, static_argnums=0)(f)) for f in (fused._fused, fused._formula))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())
