# %% [markdown]
# # Train on your own folder
#
# This notebook makes a small folder of images and masks, checks it, trains a network on it, scores the network and
# segments a new image. Replace the first cell by the path of your own folder.

# %%
from pathlib import Path

import numpy as np
from PIL import Image

import jaxseg
from jaxseg.data.check import main as check

EXPERIMENT = Path(jaxseg.__file__).parents[1] / "experiments" / "resunet.py"
FOLDER = Path("my_folder")

rng = np.random.default_rng(0)


def draw(path: Path, name: str) -> None:
    """Writes one image of bright discs on a dark background, and its mask: 0 background, 1 disc."""
    rows, columns = np.mgrid[:48, :64]
    mask = np.zeros((48, 64), np.uint8)
    for _ in range(3):
        y, x, radius = rng.uniform(0, 48), rng.uniform(0, 64), rng.uniform(5, 12)
        mask[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = 1
    image = rng.normal(60, 20, (48, 64, 3)) + 110 * mask[..., None] * rng.uniform(0.6, 1, 3)
    for kind, array in (("images", np.clip(image, 0, 255).astype(np.uint8)), ("masks", mask)):
        (path / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path / kind / f"{name}.png")


for split, count in (("train", 24), ("val", 6), ("test", 6)):
    for i in range(count):
        draw(FOLDER / split, f"{i:03}")

# %% [markdown]
# `classes.json` names the classes. Without it they are numbered.

# %%
(FOLDER / "classes.json").write_text(
    '{"classes": [{"index": 0, "name": "background", "colour": [30, 30, 30]},'
    ' {"index": 1, "name": "disc", "colour": [240, 120, 40]}]}'
)

# %% [markdown]
# Check the data before a long training. The command lists what is wrong and draws masks over images in `check.png`. The
# settings are those of the recipe `folder`, shortened for this notebook.

# %%
SETTINGS = {
    "data.dir": str(FOLDER),
    "data.size": (48, 64),
    "model.args.widths": (8, 16, 32),
    "steps": 60,
    "schedule.warmup": 10,
    "eval.every": 30,
    "optimizer.learning_rate": 3e-3,
}
# On the command line: jaxseg check --config experiments/resunet.py:folder --config.data.dir=my_folder
assert check([f"--config={EXPERIMENT}:folder", *(f"--config.{key}={value}" for key, value in SETTINGS.items())]) == 0

# %% [markdown]
# Train. The result is the run with its best checkpoint. The same call again resumes the run, or says that it is
# finished.

# %%
run = jaxseg.train(f"{EXPERIMENT}:folder", workdir="runs/my_folder", **SETTINGS)

# %% [markdown]
# Score the test split, which no choice has used. `jaxseg.load` opens the run in another program.

# %%
run = jaxseg.load("runs/my_folder")
scores = run.evaluate("test")
print(scores)

# %% [markdown]
# Segment a new image. `classes` holds the class index of every pixel.

# %%
draw(Path("new"), "image")
prediction = run.predict("new/images/image.png").classes
truth = np.asarray(Image.open("new/masks/image.png"))
print(f"{100 * np.mean(prediction == truth):.1f} % of the pixels are right.")
