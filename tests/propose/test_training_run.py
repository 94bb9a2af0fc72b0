"""A run with proposals: it stops and goes on, bit for bit, and says in its workdir what joined."""

import csv
import json
import shutil

import numpy as np
import pytest
from helpers.tiny_run import short_config
from helpers.tiny_training import assert_identical, state_of
from PIL import Image

from jaxseg.data.proposals import COLUMNS, DECISIONS, KEEP, MADE_BY, TABLE, digest_of
from jaxseg.data.sources import make_source, training_source
from jaxseg.errors import ConfigError
from jaxseg.train import train


def write_proposals(out, classes, names):
    """Writes a folder of proposals for random images, all of them kept."""
    rng, decisions = np.random.default_rng(0), {}
    for kind in ("images", "masks"):
        (out / kind).mkdir(parents=True)
    with (out / TABLE).open("w", newline="") as lines:
        table = csv.writer(lines)
        table.writerow(COLUMNS)
        for rank, name in enumerate(names, 1):
            image, mask = out / "images" / f"{name}.png", out / "masks" / f"{name}.png"
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(image)
            Image.fromarray(rng.integers(0, len(classes), (16, 16), np.uint8)).save(mask)
            table.writerow((rank, name, image, f"masks/{name}.png", f"confidence/{name}.png", 0.5, ""))
            decisions[name] = {"decision": KEEP, "note": "", "mask": digest_of(mask)}
    (out / DECISIONS).write_text(json.dumps({"made_by": MADE_BY, "classes": classes, "decisions": decisions}))


def test_a_run_with_proposals_resumes(tmp_path):
    out = tmp_path / "proposals"
    write_proposals(out, make_source(short_config(), "train").info.classes, ["b", "a"])
    config = short_config(data__proposals=str(out))
    source = training_source(config)
    assert [source.name(i) for i in range(8, len(source))] == ["a", "b"]
    train(config, tmp_path / "a", "again")
    lines = [f"{digest_of(out / 'masks' / f'{name}.png')} {name}" for name in "ab"]
    assert (tmp_path / "a" / "proposals.txt").read_text().splitlines() == lines
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "checkpoints" / "4")
    train(config, tmp_path / "b", "again")
    assert_identical(state_of(tmp_path / "b"), state_of(tmp_path / "a"))
    Image.new("L", (16, 16), 1).save(out / "masks" / "b.png")
    decisions = json.loads((out / DECISIONS).read_text())
    decisions["decisions"]["b"]["mask"] = digest_of(out / "masks" / "b.png")
    (out / DECISIONS).write_text(json.dumps(decisions))
    with pytest.raises(ConfigError, match="'b' is in one of the two alone or has another mask"):
        train(config, tmp_path / "b", "again")
