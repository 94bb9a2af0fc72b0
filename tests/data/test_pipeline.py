"""The loaders: order, resuming, sharding by process, padding, worker processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxseg.data.base import DataInfo
from jaxseg.data.class_counts import pixel_counts
from jaxseg.data.pipeline import make_eval_loader, make_train_loader
from jaxseg.errors import DataError
from jaxseg.types import IGNORE


class Numbers:
    """Images whose pixels tell their index; sizes from a list that is gone through again and again."""

    def __init__(self, length: int, sizes=((20, 30),), channels: int = 3):
        self.length, self.sizes = length, sizes
        self.info = DataInfo(("a", "b", "c"), ((0, 0, 0),) * 3, None, channels)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        h, w = self.sizes[index % len(self.sizes)]
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (h, w, self.info.channels)).astype(np.uint8)
        image[..., 0] = index
        return {"image": image, "label": rng.integers(0, 3, (h, w)).astype(np.uint8)}

    def name(self, index: int) -> str:
        return f"number {index}"

    def label_size(self, index: int) -> tuple[int, int]:
        return self.sizes[index % len(self.sizes)]


class JaxStarted(Numbers):
    """Its images are 1 where reading them finds JAX's devices started, else 0."""

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        bridge = sys.modules["jax._src.xla_bridge"] if "jax._src.xla_bridge" in sys.modules else None
        started = bool(bridge is not None and bridge._backends)
        return {"image": np.full((4, 4, 3), started, np.uint8), "label": np.zeros((4, 4), np.uint8)}


def _train(source, **changes):
    arguments = {
        "batch_size": 4,
        "size": (8, 8),
        "fit": "crop",
        "channels": 3,
        "seed": 0,
        "process_index": 0,
        "process_count": 1,
    }
    return make_train_loader(source, **(arguments | changes))


def _eval(source, **changes):
    arguments = {"batch_size": 4, "size": (8, 8), "fit": "resize", "process_index": 0, "process_count": 1}
    return make_eval_loader(source, **(arguments | changes))


def _take(loader, count):
    with loader:
        return [next(loader) for _ in range(count)]


def _assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others):
        assert batch.keys() == other.keys()
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key])


def test_batches_have_the_types_of_the_contract():
    batch = _take(_train(Numbers(10)), 1)[0]
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
        "image": ((4, 8, 8, 3), np.uint8),
        "label": ((4, 8, 8), np.uint8),
        "index": ((4,), np.int32),
    }
    assert (batch["image"][..., 0] == batch["index"][:, None, None]).all()


def test_the_seed_decides_the_batches():
    first, second, other = (_take(_train(Numbers(10), seed=seed), 8) for seed in (3, 3, 4))
    _assert_same(first, second)
    assert any((a["index"] != b["index"]).any() for a, b in zip(first, other))
    _take(_train(Numbers(10), seed=-1), 1)


def test_every_epoch_has_every_example_in_an_order_of_its_own():
    order = np.concatenate([b["index"] for b in _take(_train(Numbers(10)), 10)])
    epochs = order.reshape(4, 10)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(10), (4, 1)))
    assert len({tuple(e) for e in epochs}) == 4


def test_a_source_smaller_than_a_batch_is_repeated():
    assert set(_take(_train(Numbers(1), batch_size=8), 1)[0]["index"]) == {0}


# Three pairs of processes; below a state goes to two of them, and tests/test_resume.py resumes a run with a worker.
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_resuming_goes_on_where_the_state_was_taken(workers):
    whole = _take(_train(Numbers(10)), 9)
    with _train(Numbers(10), workers=workers) as loader:
        _assert_same([next(loader) for _ in range(4)], whole[:4])
        state = json.loads(json.dumps(loader.get_state()))
    with _train(Numbers(10), workers=workers) as fresh:
        fresh.set_state(state)
        _assert_same([next(fresh) for _ in range(5)], whole[4:])
        fresh.set_state(state)
        _assert_same([next(fresh)], whole[4:5])


def test_state_moves_between_threads_and_workers():
    whole = _take(_train(Numbers(10)), 5)
    with _train(Numbers(10), prefetch=0) as loader:
        _assert_same([next(loader) for _ in range(3)], whole[:3])
        state = loader.get_state()
    with _train(Numbers(10), workers=2, prefetch=4) as fresh:
        fresh.set_state(state)
        _assert_same([next(fresh) for _ in range(2)], whole[3:])


@pytest.mark.parametrize("change", [{"seed": 1}, {"batch_size": 2}])
def test_a_state_of_another_loader_is_refused(change):
    state = _train(Numbers(10)).get_state()
    with pytest.raises(DataError, match=next(iter(change))):
        _train(Numbers(10), **change).set_state(state)
    with pytest.raises(DataError, match=r"length 10, this run has 11.*give it back the images that it had"):
        _train(Numbers(11)).set_state(state)
    with pytest.raises(DataError, match="lacks 'seed'"):
        _train(Numbers(10)).set_state({"next_batch": 1})
    for wrong, said in ((5, "is 5, not named values"), ({**state, "next_batch": "x"}, "has next_batch 'x'")):
        with pytest.raises(DataError, match=said):
            _train(Numbers(10)).set_state(wrong)


@pytest.mark.parametrize(("count", "workers"), [(3, 0), (2, 1)])
def test_processes_share_the_batch_of_one(count, workers):
    whole = _take(_train(Numbers(10), batch_size=6), 5)
    shares = [
        _take(_train(Numbers(10), batch_size=6, workers=workers, process_index=p, process_count=count), 5)
        for p in range(count)
    ]
    _assert_same([{k: np.concatenate([s[k] for s in step]) for k in step[0]} for step in zip(*shares)], whole)


def test_processes_must_divide_the_batch():
    with pytest.raises(ValueError, match="not divisible by 3"):
        _train(Numbers(10), process_count=3)
    with pytest.raises(ValueError, match="divisible"):
        _eval(Numbers(10), process_count=3)


def test_ragged_images_are_brought_to_one_size():
    sizes = ((1, 1), (7, 31), (40, 9))
    for fit in ("resize", "crop"):
        for batch in _take(_train(Numbers(9, sizes), fit=fit), 3):
            assert batch["image"].shape == (4, 8, 8, 3) and batch["label"].shape == (4, 8, 8)


def test_empty_sources_are_refused():
    with pytest.raises(DataError, match="no examples"):
        _train(Numbers(0))
    with pytest.raises(DataError, match="no examples"):
        _eval(Numbers(0))


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_a_source_reach_the_loop(workers):
    loader = _train(Numbers(4, channels=1), workers=workers)
    with loader, pytest.raises(DataError, match=r"number \d is an image of shape"):
        next(loader)


class OfTwoTypes(Numbers):
    """White images, those of `wide` of 16 bits, the others of 8."""

    def __init__(self, length: int, wide: tuple[int, ...]):
        super().__init__(length, sizes=((8, 8),))
        self.wide = wide

    def __getitem__(self, index):
        image = np.full((8, 8, 3), *((65535, np.uint16) if index in self.wide else (255, np.uint8)))
        return {"image": image, "label": np.zeros((8, 8), np.uint8)}


def test_8_and_16_bit_images_share_a_batch():
    batch = _take(_train(OfTwoTypes(4, wide=(0, 2))), 1)[0]
    assert batch["image"].dtype == np.uint16
    np.testing.assert_array_equal(batch["image"], 65535)


@pytest.mark.parametrize("process", range(4))
def test_processes_have_images_of_one_type(process):
    """Each of four processes reads one image of a batch; that of the padding is black."""
    here = {"process_index": process, "process_count": 4}
    source = OfTwoTypes(5, wide=(0,))
    for batch in [*_take(_train(source, **here), 5), *_eval(source, **here)]:
        assert batch["image"].dtype == np.uint16
        assert np.all(batch["image"] == (65535 if batch["index"][0] >= 0 else 0))


@pytest.mark.parametrize("make", [_train, _eval])
def test_processes_refuse_a_later_image_of_16_bits(make):
    loader = make(OfTwoTypes(4, wide=(3,)), process_index=0, process_count=2, batch_size=8)
    with pytest.raises(DataError, match="first image of the split has 8 bits and another has 16"):
        for _, _ in zip(range(4), loader):
            pass
    if make is _train:
        loader.close()


def test_workers_start_no_jax_devices():
    import jax

    jax.devices()
    with _train(JaxStarted(4), workers=1) as loader:
        assert not next(loader)["image"].any()


def test_reading_leaves_cores_to_the_step():
    from jaxseg.data.batching import cores, read_options

    assert read_options(32).num_threads == min(8, max(1, cores() // 2))
    assert read_options(0).num_threads == 0


@pytest.mark.skipif(not hasattr(os, "fork") or not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_workers_end_with_a_killed_parent(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing, time\n"
        "from jaxseg.data.pipeline import make_train_loader\n"
        "from jaxseg.data.shapes import ShapesSource\n"
        "if __name__ == '__main__':\n"
        "    loader = make_train_loader(ShapesSource('train', 8, (8, 8)), batch_size=2, size=(8, 8), fit='resize',\n"
        "        channels=3, seed=0, workers=2, process_index=0, process_count=1)\n"
        "    next(loader); next(loader)\n"
        "    print(*[p.pid for p in multiprocessing.active_children()], flush=True)\n"
        "    time.sleep(60)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        pids = [int(p) for p in parent.stdout.readline().split()]
        assert len(pids) == 2
        os.kill(pids[0], signal.SIGTERM)  # Left to the parent.
        time.sleep(0.2)
        assert all(_alive(pid) for pid in pids)
        parent.kill()
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in pids)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("fit", ["resize", "crop"])
@pytest.mark.parametrize("sizes", [((8, 8),), ((20, 30),), ((20, 30), (21, 30), (5, 200))])
@pytest.mark.parametrize("count", [1, 2])
def test_evaluation_sees_every_image_once(fit, sizes, count):
    source = Numbers(11, sizes)
    loaders = [_eval(source, fit=fit, process_index=p, process_count=count) for p in range(count)]
    steps = list(zip(*loaders, strict=True))
    assert len({len(loader) for loader in loaders}) == 1 and len(steps) == len(loaders[0])
    seen = []
    for step in steps:
        assert len({(b["image"].shape, b["label"].shape) for b in step}) == 1
        for batch in step:
            assert batch["size"].dtype == batch["index"].dtype == np.int32
            assert batch["inside"].dtype == np.int32
            keys = ("image", "label", "size", "inside", "index")
            for image, label, size, inside, index in zip(*(batch[k] for k in keys)):
                if index < 0:
                    assert (label == IGNORE).all() and not image.any() and (size > 0).all() and (inside == 0).all()
                    continue
                assert tuple(inside) == image.shape[:2]
                seen.append(int(index))
                example = source[index]
                h, w = example["label"].shape
                assert tuple(size) == (h, w)
                np.testing.assert_array_equal(label[:h, :w], example["label"])
                assert (label[h:] == IGNORE).all() and (label[:, w:] == IGNORE).all()
                assert image.shape == ((8, 8, 3) if fit == "resize" else (h, w, 3))
    assert sorted(seen) == list(range(11))
    _assert_same(list(loaders[0]), [step[0] for step in steps])


def test_canvases():
    assert [b["label"].shape[1:] for b in _eval(Numbers(4, ((8, 8),)))] == [(8, 8)]
    assert [b["label"].shape[1:] for b in _eval(Numbers(4, ((20, 30),)))] == [(20, 30)]
    shapes = [b["label"].shape[1:] for b in _eval(Numbers(8, ((20, 30), (70, 10))))]
    assert shapes == [(64, 64), (128, 64)]
    assert [b["label"].shape[1:] for b in _eval(Numbers(4, ((20, 30), (10, 17))), canvas_multiple=8)] == [(24, 32)]


def test_padding_up_to_a_divisor():
    batches = list(_eval(Numbers(9), divisor=2))
    assert [len(b["index"]) for b in batches] == [4, 4, 2]
    assert batches[-1]["index"].tolist() == [8, -1]


def test_native_sizes_are_filled_up_to_few():
    source = Numbers(6, ((20, 30), (17, 32), (33, 2)))
    batches = list(_eval(source, fit="crop", multiple=16))
    assert {b["image"].shape[1:3] for b in batches} == {b["label"].shape[1:] for b in batches} == {(32, 32), (48, 16)}
    for batch in batches:
        keys = ("image", "label", "size", "inside", "index")
        for image, label, size, inside, index in zip(*(batch[k] for k in keys)):
            assert tuple(size) == label.shape
            if index >= 0:
                example = source[int(index)]
                (h, w), (y, x) = example["label"].shape, label.shape
                assert tuple(inside) == (h, w)
                np.testing.assert_array_equal(image, np.pad(example["image"], ((0, y - h), (0, x - w), (0, 0)), "edge"))
                np.testing.assert_array_equal(label[:h, :w], example["label"])
                assert (label == IGNORE).sum() == y * x - h * w


def test_evaluation_plans_without_reading_an_image():
    class Sized(Numbers):
        reads = 0

        def __getitem__(self, index):
            Sized.reads += 1
            return super().__getitem__(index)

    loader = _eval(Sized(6))
    assert Sized.reads == 0
    assert len(list(loader)) == 2 and Sized.reads == 6


def test_pixel_counts_leave_ignore_out():
    class Three(Numbers):
        def __getitem__(self, index):
            label = [[[0, 0], [0, 1]], [[0, 1], [1, IGNORE]], [[IGNORE, IGNORE], [IGNORE, 1]]][index]
            return {"image": np.zeros((2, 2, 3), np.uint8), "label": np.array(label, np.uint8)}

    of_class, where_present = pixel_counts(Three(3))
    assert of_class.dtype == where_present.dtype == np.int64
    assert of_class.tolist() == [4, 4, 0]
    assert where_present.tolist() == [7, 8, 0]
