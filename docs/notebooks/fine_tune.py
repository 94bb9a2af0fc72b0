# %% [markdown]
# # Fine-tune a pretrained encoder
#
# A network that has learned one task is a start for another. This notebook needs no download: it trains a small U-Net
# on the built-in shapes data, then fine-tunes its encoder on other images. With published weights, set
# `model.args.encoder=resnet50` and `model.encoder_weights=imagenet` instead.

# %%
import json
from pathlib import Path

import numpy as np

import jaxseg
from jaxseg import pretrained
from jaxseg.inference import load_run
from jaxseg.train import main as train

EXPERIMENT = Path(jaxseg.__file__).parents[1] / "experiments" / "unet.py"
SMALL = [
    f"--config={EXPERIMENT}",
    "--config.data.size=32,32",
    "--config.model.args.widths=(8,16,32)",
    "--config.schedule.warmup=10",
    "--config.data.shapes_val=32",
    "--config.optimizer.learning_rate=1e-2",
]


def mean_iou(workdir: str) -> float:
    """The validation mIoU of the last evaluation of a run."""
    lines = [json.loads(line) for line in Path(workdir, "log.jsonl").read_text().splitlines()]
    return [line["mean_iou"] for line in lines if "mean_iou" in line][-1]


# %% [markdown]
# ## The pretrained run
#
# Many images, and classes that are known.

# %%
PRETRAINING = ["--config.data.shapes_train=512", "--config.steps=300", "--config.eval.every=300"]
assert train([*SMALL, *PRETRAINING, "--workdir=runs/pretrained"]) == 0
print(f"pretrained: validation mIoU {mean_iou('runs/pretrained'):.3f}")

# %% [markdown]
# ## Fine-tuning
#
# Few images. `model.encoder_weights` takes the workdir of a run, a local file (`.npz`, `.safetensors`, `.pth`), a name
# or a repository. `optimizer.encoder_rate` is a factor on the encoder's learning rate; 0 freezes its parameters.

# %%
FEW = ["--config.data.shapes_train=32", "--config.steps=40", "--config.eval.every=40", "--config.seed=1"]
assert train([*SMALL, *FEW, "--workdir=runs/scratch"]) == 0
started = ["--config.model.encoder_weights=runs/pretrained", "--config.optimizer.encoder_rate=0.1"]
assert train([*SMALL, *FEW, *started, "--workdir=runs/fine_tuned"]) == 0
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
run = load_run("runs/pretrained", "last")
np.savez("unet.npz", **{path: np.asarray(x) for path, x in pretrained.flatten(run.variables).items()})
assert train([*SMALL, *FEW, "--config.model.weights=unet.npz", "--workdir=runs/whole"]) == 0
print(f"whole network: validation mIoU {mean_iou('runs/whole'):.3f}")
