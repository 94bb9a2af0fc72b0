"""The floors of the package."""

# The floors of docs/architecture.md, lowest first, with the parts of jaxseg/ that stand on each. A file may import from
# floors below its own, and a file of a package also from that package, without a circle.
# `data.check`, `data.weaken`, `data.convert` and `models.__main__` are commands in data/ and models/; `presets` is a
# former name.
ROWS = (
    ("types", "errors", "files"),  # 0
    ("arguments", "sets"),  # 0
    ("config",),  # 1
    ("nn.ops",),  # 1
    ("nn",),  # 2
    ("losses", "metrics"),  # 2
    ("models",),  # 3
    ("pretrained", "pictures"),  # 4
    ("pages",),  # 4
    ("data",),  # 4
    ("compiler", "memory", "state", "mesh"),  # 5
    ("tuning",),  # 5
    ("pruning",),  # 5
    ("optim", "objective", "parallel"),  # 5
    ("step", "adversarial", "distillation"),  # 5
    ("mixing",),  # 5
    ("consistency",),  # 5
    ("pieces",),  # 6
    ("build",),  # 6
    ("run",),  # 7
    ("inference",),  # 7
    ("export", "report"),  # 7
    ("api", "explain", "session"),  # 7
    (
        *("train", "fit", "evaluate", "predict", "propose", "crf", "shrink", "quantise", "audit", "plan", "compare"),
        *("publish",),
        *("data.check", "data.weaken", "data.convert", "models.__main__"),
    ),  # 8
    ("sweep", "reproduce"),  # 9
    ("folds",),  # 9
    ("report.__main__",),  # 9
    ("__main__",),  # 10
    ("", "presets"),  # 11, the front door
)
