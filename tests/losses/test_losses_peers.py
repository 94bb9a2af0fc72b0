"""The further losses against segmentation_models.pytorch and MONAI, values and gradients."""

import jax
import numpy as np
import pytest
from helpers.loss_references import make, make_batch, run, smooth_batch
from helpers.oracles import smp, torch

from jaxseg.types import IGNORE


def tensors(logits, labels):
    """The arrays as peers have them, [b,k,h,w]."""
    module = torch()
    return module.tensor(logits).movedim(-1, 1).requires_grad_(), module.tensor(labels).long()


def assert_same_loss(loss, theirs, logits, labels, rtol=2e-5):
    """Compares value and gradient of ours(logits, labels) with theirs(tensor [b,k,h,w], labels)."""
    value, gradient = jax.jit(jax.value_and_grad(loss))(logits, labels)
    z, y = tensors(logits, labels)
    expected = theirs(z, y)
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=rtol)
    np.testing.assert_allclose(gradient, z.grad.movedim(1, -1).numpy(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "name, options, theirs, arguments",
    [
        ("dice", {"squared": False}, "DiceLoss", {}),
        # Their smooth is added to the intersection, half of ours.
        ("dice", {"squared": False, "log": True, "smooth": 2.0}, "DiceLoss", {"log_loss": True, "smooth": 1.0}),
        ("jaccard", {}, "JaccardLoss", {}),
        ("jaccard", {"log": True}, "JaccardLoss", {"log_loss": True}),
        ("tversky", {}, "TverskyLoss", {"alpha": 0.3, "beta": 0.7}),
        ("focal", {"one_vs_rest": True}, "FocalLoss", {}),
        ("focal", {"one_vs_rest": True, "alpha": 0.25, "gamma": 3.0}, "FocalLoss", {"alpha": 0.25, "gamma": 3.0}),
        ("lovasz", {}, "LovaszLoss", {"per_image": True}),
    ],
)
@pytest.mark.parametrize("k", [1, 4])
def test_losses_are_smps(k, name, options, theirs, arguments):
    logits, labels = smooth_batch(k)
    labels[labels == 2] = 0  # class 2 is absent
    peer = getattr(smp().losses, theirs)("binary" if k == 1 else "multiclass", ignore_index=IGNORE, **arguments)
    assert_same_loss(make(name, options, k), peer, logits, labels)


def test_focal_tversky_raises_each_class_where_smp_raises_the_mean():
    logits, labels = smooth_batch(1)
    arguments = {"alpha": 0.3, "beta": 0.7, "gamma": 0.75}
    peer = smp().losses.TverskyLoss("binary", ignore_index=IGNORE, **arguments)
    assert_same_loss(make("tversky", {"gamma": 0.75}, 1), peer, logits, labels)
    logits, labels = smooth_batch(4)
    each = [run("tversky", logits, labels)[0]]
    peer = smp().losses.TverskyLoss("multiclass", ignore_index=IGNORE, **arguments)
    np.testing.assert_allclose((each[0] / 4) ** 0.75, peer(*tensors(logits, labels)).item(), rtol=1e-5)
    assert float(jax.jit(make("tversky", {"gamma": 0.75}, 4))(logits, labels)) < float((each[0] / 4) ** 0.75)  # Jensen


@pytest.mark.parametrize(
    "name, options, theirs, arguments",
    [
        ("dice", {"per_image": True}, "DiceLoss", {"squared_pred": True}),
        (
            "dice",
            {"squared": False, "include_background": False},
            "DiceLoss",
            {"batch": True, "include_background": False},
        ),
        ("jaccard", {"per_image": True}, "DiceLoss", {"jaccard": True}),
        ("tversky", {"per_image": True}, "TverskyLoss", {"alpha": 0.3, "beta": 0.7}),
        ("generalised_dice", {}, "GeneralizedDiceLoss", {"batch": True}),
        ("generalised_dice", {"per_image": True}, "GeneralizedDiceLoss", {}),
    ],
)
def test_losses_are_monais(name, options, theirs, arguments):
    torch()
    monai = pytest.importorskip("monai.losses")
    logits, labels = make_batch(3, ignored=0.0, shape=(2, 6, 7))  # MONAI ignores no pixel; all classes in all images
    if name == "generalised_dice":
        labels[labels == 1] = 0
    smooth = {"smooth_nr": 0.0, "smooth_dr": 0.0}
    peer = getattr(monai, theirs)(softmax=True, to_onehot_y=True, **smooth, **arguments)
    assert_same_loss(make(name, options, 3), lambda z, y: peer(z, y[:, None]), logits, labels)


@pytest.mark.parametrize("include_background", [True, False])
def test_boundary_is_monais(include_background):
    torch()
    monai = pytest.importorskip("monai.losses")
    if not hasattr(monai, "BoundaryLoss"):
        pytest.skip("this MONAI has no BoundaryLoss")
    logits, labels = smooth_batch(3, (2, 12, 14))
    labels[labels == IGNORE] = 0
    labels[0][labels[0] == 2] = 1  # a class that is absent from an image
    peer = monai.BoundaryLoss(softmax=True, to_onehot_y=True, include_background=include_background)
    loss = make("boundary", {"include_background": include_background}, 3)
    assert_same_loss(loss, lambda z, y: peer(z, y[:, None]), logits, labels)
