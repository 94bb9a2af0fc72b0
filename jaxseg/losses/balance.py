"""Numbers that balance frequent and rare classes in a loss: weights of classes, and shifts of their logits."""

import numpy as np

from jaxseg.types import Array


def median_frequency_weights(counts: Array, present: Array) -> np.ndarray:
    """Class weights that balance rare classes, i64[k] and i64[k] -> f32[k].

    w_c = median(f) / f_c with f_c = counts_c / present_c: Eigen and Fergus, Predicting Depth, Surface Normals and
    Semantic Labels, 2015, section 6.3.2. A class that never occurs gets 0 and is left out of the median.

    Args:
        counts: pixels of each class over the training data.
        present: pixels (of any class) in the images that contain the class.

    Raises:
        ValueError: if the shapes differ, a count exceeds its total, or no class occurs at all.
    """
    counts, present = np.asarray(counts, np.float64), np.asarray(present, np.float64)
    if counts.ndim != 1 or counts.shape != present.shape:
        raise ValueError(
            f"Median frequencies need two vectors of one length, got shapes {counts.shape} and {present.shape}."
        )
    if (counts < 0).any() or (counts > present).any():
        raise ValueError("The pixels of a class must lie between 0 and the pixels of the images that contain it.")
    if not counts.any():
        raise ValueError("Median-frequency weights need labelled pixels, and every class count is 0.")
    occurs = counts > 0
    frequency = counts[occurs] / present[occurs]
    weights = np.zeros(counts.shape, np.float32)
    weights[occurs] = np.median(frequency) / frequency
    return weights


def effective_number_weights(amounts: Array, beta: float) -> np.ndarray:
    """Class weights by the effective number of examples, f64[k] -> f32[k] whose mean over the classes that occur is 1.

    w_c is proportional to 1 / E_c with E_c = (1 - β^n_c) / (1 - β): Cui et al., Class-Balanced Loss Based on Effective
    Number of Samples, 2019, equations 2 and 4. β = 0 gives equal weights, and β -> 1 the inverse frequency. A class
    with n_c far above 1 / (1 - β) examples counts as one with 1 / (1 - β). A class that never occurs gets 0.

    Args:
        amounts: n_c, the examples of each class. In segmentation neighbouring pixels repeat each other, so that the
            number of pixels is no number of examples: `loss.class_weights=effective_number` takes the number of
            whole images that the pixels of the class would fill, which depends neither on the size of the images nor
            on ignored pixels.
        beta: β in [0, 1).

    Raises:
        ValueError: if the amounts are no vector, one is negative or not finite, all are 0, or β is outside [0, 1).
    """
    amounts = np.asarray(amounts, np.float64)
    if amounts.ndim != 1 or not np.isfinite(amounts).all() or (amounts < 0).any():
        raise ValueError(f"The examples of each class must be finite numbers of at least 0, got {amounts.tolist()}.")
    if not amounts.any():
        raise ValueError("Weights by the effective number need labelled pixels, and every class count is 0.")
    if not 0 <= beta < 1:
        raise ValueError(f"beta must be in [0, 1), got {beta:g}.")
    occurs = amounts > 0
    # -expm1(n log β) is 1 - β^n without the loss of digits near β = 1; E_c is constant for β = 0.
    inverse = 1.0 / -np.expm1(amounts[occurs] * np.log(beta)) if beta > 0 else np.ones(occurs.sum())
    weights = np.zeros(amounts.shape, np.float32)
    weights[occurs] = inverse / inverse.mean()
    return weights


def logit_shift(prior: Array, tau: float) -> np.ndarray:
    """τ log π_c, what logit adjustment adds to each logit in training, f64[k] -> f32[k].

    Menon et al., Long-tail Learning via Logit Adjustment, 2021, equation 10. The network then learns logits whose
    largest is the class with the best balanced accuracy, so that evaluation and prediction add nothing.

    A class without pixels gets the shift 0 in place of -inf: the loss then teaches that it is never right, where -inf
    would leave its logit untrained.

    Args:
        prior: π, the share of each class among the labelled pixels of the training data.
        tau: τ, 1 in the paper's main result; 0 changes nothing.

    Raises:
        ValueError: if a share is negative or not finite, or all are 0.
    """
    prior = np.asarray(prior, np.float64)
    if prior.ndim != 1 or not np.isfinite(prior).all() or (prior < 0).any() or not prior.any():
        raise ValueError(f"A prior has a share of at least 0 for each class, and not all 0, got {prior.tolist()}.")
    occurs = prior > 0
    shift = np.zeros(prior.shape, np.float32)
    shift[occurs] = tau * np.log(prior[occurs] / prior.sum())
    return shift
