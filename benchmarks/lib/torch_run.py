"""A whole training in plain PyTorch: the loop that `whole_run.py` times against `python -m jaxseg.train`.

    python -m lib.torch_run CONFIG.json WORKDIR WORKERS

It is written as a user of PyTorch writes it: a Dataset with the augmentation, a DataLoader with worker processes,
AdamW, a schedule, evaluations and checkpoints after as many steps as in jaxseg, and a picture of the curve at the end.
The images are read by the same sources, so reading costs the same in both.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lib.torch_networks import ResUNet
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from jaxseg.config import ConfigDict
from jaxseg.data.sources import make_source

IGNORE = 255


class Images(Dataset):
    """Normalised images f32[c,h,w] with labels i64[h,w]; half of them mirrored left-right in training."""

    def __init__(self, config: ConfigDict, split: str) -> None:
        self.source = make_source(config, split)
        self.flip = config.augment.flip_horizontal if split == "train" else 0.0
        self.mean, self.std = (np.asarray(x, np.float32) for x in (config.data.mean, config.data.std))

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        example = self.source[index]
        image = (example["image"].astype(np.float32) / 255 - self.mean) / self.std
        label = example["label"]
        if torch.rand(()) < self.flip:
            image, label = image[:, ::-1], label[:, ::-1]
        image = np.ascontiguousarray(image.transpose(2, 0, 1))
        return torch.from_numpy(image), torch.from_numpy(label.astype(np.int64))


def objective(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy plus one minus the mean Dice of the classes, over the pixels that are not ignored."""
    known = (target != IGNORE)[:, None]
    classes = torch.where(known[:, 0], target, 0)
    truth = functional.one_hot(classes, logits.shape[1]).permute(0, 3, 1, 2) * known
    probability = logits.softmax(1) * known
    both = (probability * truth).sum((0, 2, 3))
    each = (probability**2).sum((0, 2, 3)) + truth.sum((0, 2, 3))
    dice = 1 - (2 * both / each.clamp_min(1e-12)).mean()
    return functional.cross_entropy(logits, target, ignore_index=IGNORE) + dice


def evaluate(model: torch.nn.Module, loader: DataLoader, classes: int) -> float:
    """Returns the mIoU of a split."""
    confusion = torch.zeros(classes * classes, dtype=torch.int64)
    model.eval()
    with torch.inference_mode():
        for image, target in loader:
            predicted = model(image.contiguous(memory_format=torch.channels_last)).argmax(1)
            known = target != IGNORE
            confusion += torch.bincount(target[known] * classes + predicted[known], minlength=classes**2)
    model.train()
    table = confusion.reshape(classes, classes).double()
    union = table.sum(0) + table.sum(1) - table.diag()
    return float((table.diag() / union)[union > 0].mean())


def train(config: ConfigDict, workdir: Path, workers: int) -> dict[str, Any]:
    """Trains to the last step; returns the log and the last validation mIoU."""
    torch.manual_seed(config.seed)
    data = Images(config, "train")
    classes = len(data.source.info.classes)
    settings = {"num_workers": workers, "persistent_workers": True}
    loader = DataLoader(data, config.batch_size, shuffle=True, drop_last=True, **settings)
    validation = DataLoader(Images(config, "val"), config.eval.batch_size, **settings)
    model = ResUNet(config.model.args.widths, classes).to(memory_format=torch.channels_last)
    rate, warmup = config.optimizer.learning_rate, config.schedule.warmup
    kernels, others = ([p for p in model.parameters() if (p.ndim > 1) == decays] for decays in (True, False))
    groups = [{"params": kernels, "weight_decay": config.optimizer.weight_decay}, {"params": others}]
    optimizer = torch.optim.AdamW(groups, rate, weight_decay=0.0, fused=True)

    def factor(step: int) -> float:
        passed = max(step - warmup, 0) / (config.steps - warmup)
        return min((step + 1) / (warmup + 1), 1.0) * 0.5 * (1 + math.cos(math.pi * passed))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    log: list[dict[str, float]] = []
    step, total = 0, 0.0
    while step < config.steps:
        for image, target in loader:
            loss = objective(model(image.contiguous(memory_format=torch.channels_last)), target)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            step, total = step + 1, total + loss.item()
            if step % config.log.every == 0:
                log.append({"step": step, "loss": total / config.log.every})
                total = 0.0
            last = step == config.steps
            if last or step % config.eval.every == 0:
                log.append({"step": step, "mean_iou": evaluate(model, validation, classes)})
            if last or step % config.checkpoint.every == 0:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
                torch.save(state, workdir / "checkpoint.pt")
            if last:
                break
    return {"log": log, "mean_iou": log[-1]["mean_iou"]}


def picture(log: list[dict[str, float]], path: Path) -> None:
    """Draws the loss over the steps."""
    from matplotlib.figure import Figure

    figure = Figure()
    rows = [row for row in log if "loss" in row]
    figure.subplots().plot([row["step"] for row in rows], [row["loss"] for row in rows])
    figure.savefig(path)


def main(argv: list[str]) -> int:
    """The command line: the file with the configuration, the folder for the checkpoint, the number of workers."""
    config, workdir, workers = ConfigDict(json.loads(Path(argv[0]).read_text())), Path(argv[1]), int(argv[2])
    found = train(config, workdir, workers)
    picture(found["log"], workdir / "loss.png")
    (workdir / "result.json").write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
