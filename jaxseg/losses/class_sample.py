"""The set of classes that a training step samples, so that the network computes the logits of these classes alone."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxseg.losses.pixels import one_hot
from jaxseg.types import IGNORE, Array, Key, ignore_label


class ClassSample(NamedTuple):
    """Some of k classes, one set for a whole batch; see `sample_classes`.

    Attributes:
        classes: i32[s], the classes, each once; logits f32[b,h,w,s] are in this order.
        shift: f32[s], -log of the probability that the class is in the set; it is added to the logit.
        place: i32[k], the index in `classes` of each class, -1 for a class that is not in the set.
    """

    classes: jax.Array
    shift: jax.Array
    place: jax.Array

    def local_labels(self, labels: Array) -> jax.Array:
        """i[b,h,w] in 0..k-1 or IGNORE -> indices in `classes`; IGNORE for a class outside the set, -1 for no class.

        IGNORE is `ignore_label` of k in the first, and that of s in the second.
        """
        labels = jnp.asarray(labels, jnp.int32)
        k, ignored = self.place.shape[0], ignore_label(self.classes.shape[0])
        place = self.place[jnp.clip(labels, 0, k - 1)]
        inside = (labels >= 0) & (labels < k)
        left_out = (labels == ignore_label(k)) | (inside & (place < 0))
        return jnp.where(left_out, ignored, jnp.where(inside, place, -1))


def present_classes(labels: Array, num_classes: int) -> jax.Array:
    """i[b,h,w] -> f32[k], 1 for each class that a pixel has; it adds over devices, where above 0 means present."""
    if num_classes > IGNORE:  # a comparison of each pixel with each class would take long
        labels = jnp.asarray(labels, jnp.int32).reshape(-1)
        place = jnp.where((labels >= 0) & (labels < num_classes), labels, num_classes)
        return jnp.zeros(num_classes + 1, jnp.float32).at[place].max(1.0)[:num_classes]
    truth = one_hot(labels, num_classes) & (jnp.asarray(labels) != IGNORE)[..., None]
    return jnp.max(truth, axis=tuple(range(truth.ndim - 1))).astype(jnp.float32)


def sample_classes(key: Key, present: jax.Array, samples: int) -> ClassSample:
    """Draws the classes whose logits a step computes: all present ones, and others at random, f32[k] -> s classes.

    The set C has s = min(samples, k) classes. Those above 0 in `present`, t of them, are in it for certain, and s - t
    of the others, drawn uniformly without replacement, each with the probability π = (s - t) / (k - t). The sum

        Σ_{c in C} exp(z_c - log π_c),  with π_c = 1 for the present classes,

    then has the expectation Σ_c exp z_c: the correction of a sampled softmax by the log of the expected count (Jean et
    al. 2015, "On Using Very Large Target Vocabulary for Neural Machine Translation", section 3; Bengio & Senécal 2008,
    "Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic Language Model").

    Where more than s classes are present, s of them, drawn uniformly, are the set, with no correction.

    Args:
        key: equal on all devices.
        present: f32[k], see `present_classes`, of the whole batch.
        samples: s, at least 1; k for more.
    """
    k = present.shape[0]
    s = min(samples, k)
    here = present > 0
    order = jax.random.uniform(key, (k,)) + here  # present classes in [1, 2), the others in [0, 1)
    classes = jax.lax.top_k(order, s)[1].astype(jnp.int32)
    t = jnp.minimum(jnp.sum(here), s)
    probability = (s - t) / jnp.maximum(k - t, 1)
    shift = jnp.where(here[classes], 0.0, -jnp.log(jnp.where(probability > 0, probability, 1.0)))
    return ClassSample(classes, shift, jnp.full(k, -1, jnp.int32).at[classes].set(jnp.arange(s, dtype=jnp.int32)))
