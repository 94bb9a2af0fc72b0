# %% [markdown]
# # Fine-tune a pretrained encoder
#
# A network that has learned one task is a start for another. This notebook needs no download: it trains a small U-Net
# on the built-in shapes data, then fine-tunes its encoder on other images. With network access, published
# weights are the start of a training with `model.args.encoder=resnet50` and `model.encoder_weights=imagenet`, and of a
# network of your own with
#
#     model = jaxseg.create_model("unet", encoder="resnet50", weights="imagenet", num_classes=3)

# %%
import json
from pathlib import Path

import numpy as np

import jaxseg
from jaxseg import pretrained

EXPERIMENT = Path(jaxseg.__file__).parents[1] / "experiments" / "unet.py"
SMALL = {
    "data.size": (32, 32),
    "model.args.widths": (8, 16, 32),
    "schedule.warmup": 10,
    "data.shapes_val": 32,
    "optimizer.learning_rate": 1e-2,
}


def mean_iou(workdir: str) -> float:
    """The validation mIoU of the last evaluation of a run."""
    lines = [json.loads(line) for line in Path(workdir, "log.jsonl").read_text().splitlines()]
    return [line["mean_iou"] for line in lines if "mean_iou" in line][-1]


# %% [markdown]
# ## The pretrained run
#
# Many images, and classes that are known.

# %%
PRETRAINING = {"data.shapes_train": 512, "steps": 300, "eval.every": 300}
jaxseg.train(EXPERIMENT, workdir="runs/pretrained", **SMALL, **PRETRAINING)
print(f"pretrained: validation mIoU {mean_iou('runs/pretrained'):.3f}")

# %% [markdown]
# ## Fine-tuning
#
# Few images. `model.encoder_weights` takes the workdir of a run, a local file (`.npz`, `.safetensors`, `.pth`), a name
# or a repository. `optimizer.encoder_rate` is a factor on the encoder's learning rate; 0 freezes its parameters.

# %%
FEW = {"data.shapes_train": 32, "steps": 40, "eval.every": 40, "seed": 1}
jaxseg.train(EXPERIMENT, workdir="runs/scratch", **SMALL, **FEW)
START = {"model.encoder_weights": "runs/pretrained", "optimizer.encoder_rate": 0.1}
jaxseg.train(EXPERIMENT, workdir="runs/fine_tuned", **SMALL, **FEW, **START)
for name in ("scratch", "fine_tuned"):
    print(f"{name}: validation mIoU {mean_iou(f'runs/{name}'):.3f}")

# %% [markdown]
# `run.json` records where the weights came from, with the SHA-256 of a file.

# %%
starts = json.loads(Path("runs/fine_tuned/run.json").read_text())
print(json.dumps(starts, indent=2)[:2000])

# %% [markdown]
# ## From a file
#
# Weights can be saved under the names of jaxseg in one `.npz` file, and given to another run. The keys are those that
# `pretrained.flatten` makes of the variables.

# %%
run = jaxseg.load("runs/pretrained", "last")
np.savez("unet.npz", **{path: np.asarray(x) for path, x in pretrained.flatten(run.variables).items()})
jaxseg.train(EXPERIMENT, workdir="runs/whole", **SMALL, **FEW, **{"model.weights": "unet.npz"})
print(f"whole network: validation mIoU {mean_iou('runs/whole'):.3f}")
