"""Temperature scaling against a minimiser of SciPy, and calibration by class against NumPy."""

import jax
import numpy as np
import pytest
from scipy import optimize, special

from jaxseg.metrics import class_calibration, class_calibration_stats, fit_temperature, temperature_stats
from jaxseg.types import IGNORE

stats_of = jax.jit(temperature_stats, static_argnames="one_vs_rest")
calibration_stats_of = jax.jit(class_calibration_stats, static_argnames=("one_vs_rest", "temperature"))


def loss(z, labels, kind, temperature):
    """The mean NLL in float64."""
    z = z.astype(np.float64) / temperature
    if kind == "softmax":
        return np.mean(special.logsumexp(z, -1) - np.take_along_axis(z, labels[..., None], -1)[..., 0])
    target = labels[..., None] == (np.arange(z.shape[-1]) if kind == "one_vs_rest" else 1)
    return np.mean(np.sum(np.logaddexp(0, np.where(target, -z, z)), -1))


def example(kind, temperature, n=3000, k=4, seed=0):
    """Logits that are `temperature` times too large for labels drawn from them; a tenth of the labels is ignored."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 1 if kind == "binary" else k)) * 2
    if kind == "binary":
        labels = (rng.random(n) < special.expit(z[:, 0])).astype(np.int32)
    else:
        labels = np.array([rng.choice(k, p=p) for p in special.softmax(z, -1)], np.int32)
    return (z * temperature).astype(np.float32), labels


@pytest.mark.parametrize(("kind", "true"), [("softmax", 3.0), ("softmax", 0.3), ("binary", 1.7), ("one_vs_rest", 2.0)])
def test_the_temperature_is_that_of_a_minimiser(kind, true):
    z, labels = example(kind, true)
    given = np.concatenate([labels, np.full(300, IGNORE, np.int32)])
    logits = np.concatenate([z, 50 * np.ones((300, z.shape[1]), np.float32)])
    stats = [
        jax.device_get(stats_of(logits[part], given[part], one_vs_rest=kind == "one_vs_rest"))
        for part in (slice(0, 1200), slice(1200, None))
    ]
    found = fit_temperature(jax.tree.map(lambda a, b: np.float64(a) + b, *stats))
    best = optimize.minimize_scalar(
        lambda t: loss(z, labels, kind, t), bounds=(0.1, 10), method="bounded", options={"xatol": 1e-8}
    )
    assert found.value == pytest.approx(best.x, rel=2e-4) and not found.at_limit
    assert found.nll_before == pytest.approx(loss(z, labels, kind, 1.0), rel=1e-5)
    assert found.nll_after == pytest.approx(best.fun, rel=1e-5) and found.nll_after < found.nll_before
    assert kind == "one_vs_rest" or found.value == pytest.approx(true, rel=0.1)


def test_pixels_that_are_all_right_and_none():
    z = np.array([[2.0, -1.0]], np.float32)
    sure = fit_temperature(stats_of(z, np.array([0])))
    assert sure.at_limit and sure.value == pytest.approx(0.1) and sure.nll_after < sure.nll_before
    wrong = fit_temperature(stats_of(z, np.array([1])))
    assert wrong.at_limit and wrong.value == pytest.approx(10.0)
    none = fit_temperature(stats_of(z, np.array([IGNORE])))
    assert np.isnan(none.value) and not none.at_limit
    with pytest.raises(ValueError, match=r"Labels of shape \(1,\) are needed"):
        temperature_stats(z, np.array([[0]]))


def by_hand(p, labels, bins):
    """The class-wise errors f64[k] of probabilities f[n,k]."""
    errors = []
    for c in range(p.shape[1]):
        place = np.clip(np.ceil(p[:, c] * bins).astype(int) - 1, 0, bins - 1)
        gaps = [abs(np.sum((labels == c)[place == m]) - p[place == m, c].sum(dtype=float)) for m in range(bins)]
        errors.append(sum(gaps) / len(p))
    return np.array(errors)


@pytest.mark.parametrize("kind", ["softmax", "binary", "one_vs_rest"])
def test_calibration_by_class(kind):
    z, labels = example(kind, 2.0, n=500)
    p = special.softmax(z / 2, -1).astype(np.float32) if kind == "softmax" else special.expit(z / 2)
    p = np.concatenate([1 - p, p], -1) if kind == "binary" else p
    given = np.concatenate([labels, [IGNORE]])
    logits = np.concatenate([z, z[:1]])
    stats = calibration_stats_of(logits, given, one_vs_rest=kind == "one_vs_rest", temperature=2.0)
    assert stats["count"].shape == (p.shape[1], 15) and int(stats["count"].sum()) == 500 * p.shape[1]
    np.testing.assert_allclose(class_calibration(stats), by_hand(p, labels, 15), atol=1e-4)
    before = calibration_stats_of(logits, given, one_vs_rest=kind == "one_vs_rest")
    if kind != "one_vs_rest":  # softmax labels are no sample of the sigmoids
        assert class_calibration(before).mean() > 1.3 * class_calibration(stats).mean()


def test_a_class_calibration_without_pixels_is_nan():
    stats = class_calibration_stats(np.zeros((1, 3), np.float32), np.array([IGNORE]))
    assert np.isnan(class_calibration(stats)).all()
    with pytest.raises(ValueError, match="integer labels"):
        class_calibration_stats(np.zeros((1, 3)), np.zeros(1))
