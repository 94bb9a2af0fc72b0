"""HRNet of timm, which has the names of its authors; the classification head is left out."""

from jaxseg.pretrained.family import MIT, EncoderFormat, EncoderWeights, Family, Published
from jaxseg.pretrained.rules import Rule, conv_norm, layer, norm


def timm(modules: tuple[int, ...] = (1, 4, 3), blocks: int = 4, bottlenecks: int = 4) -> list[Rule]:
    """Rules of timm's `hrnet_w*`; the arguments are the encoder's fields."""
    rules = conv_norm("conv1", "bn1", "stem1") + conv_norm("conv2", "bn2", "stem2")
    for k in range(bottlenecks):
        rules += _block(rf"layer1\.{k}", f"block{k + 1}", ("reduce", "conv", "expand"))
    rules += conv_norm(r"transition1\.0\.0", r"transition1\.0\.1", "transition2_0")
    for n, count in enumerate(modules, start=2):
        new = rf"transition{n - 1}\.{n - 1}\.0"
        rules += conv_norm(rf"{new}\.0", rf"{new}\.1", f"transition{n}_{n - 1}")
        for m in range(count):
            theirs, ours = rf"stage{n}\.{m}", f"parallel{n}_{m + 1}"
            for k in range(blocks):
                branch = rf"{theirs}\.branches\.(\d+)\.{k}"
                rules += _block(branch, f"{ours}/branch{{1}}_block{k + 1}", ("conv1", "conv2"))
            fuse = rf"{theirs}\.fuse_layers\.(\d+)\.(\d+)"
            # A coarser branch passes one convolution, a finer one several; each has its norm.
            rules += conv_norm(rf"{fuse}\.0", rf"{fuse}\.1", f"{ours}/fuse{{1}}_{{2}}")
            for k in range(n - 1):
                rules += conv_norm(rf"{fuse}\.{k}\.0", rf"{fuse}\.{k}\.1", f"{ours}/fuse{{1}}_{{2}}_{k + 1}")
    return [*rules, Rule(r"(incre_modules|downsamp_modules|final_layer|classifier)\..*", None)]


def _block(theirs: str, ours: str, parts: tuple[str, ...]) -> list[Rule]:
    """A residual block, whose convolutions become the children `parts`."""
    rules = []
    for i, part in enumerate(parts, start=1):
        rules += conv_norm(rf"{theirs}\.conv{i}", rf"{theirs}\.bn{i}", f"{ours}/{part}")
    rules += layer(rf"{theirs}\.downsample\.0", f"{ours}/shortcut")
    return rules + norm(rf"{theirs}\.downsample\.1", f"{ours}/shortcut_norm")


FAMILY = Family(
    encoder_weights=(
        EncoderWeights("hrnet_w18", "imagenet", Published("timm/hrnet_w18.ms_aug_in1k"), MIT),
        EncoderWeights("hrnet_w32", "imagenet", Published("timm/hrnet_w32.ms_in1k"), MIT),
        EncoderWeights("hrnet_w48", "imagenet", Published("timm/hrnet_w48.ms_in1k"), MIT),
    ),
    encoder_formats=(EncoderFormat(("hrnet_w18", "hrnet_w32", "hrnet_w48"), timm),),
)
