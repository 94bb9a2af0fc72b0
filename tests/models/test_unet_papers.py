"""MultiResUNet, R2U-Net and ResUNet++, whole and written out in torch, at a size that has to be padded."""

from helpers.papers import compare, padded

from jaxseg import models

SIZE = (13, 18)


def linear(t, x, name, **kwargs):
    """Convolution and norm."""
    return t.norm(t.conv(x, f"{name}/conv", **kwargs), f"{name}/norm")


def doubled(t, x):
    return t.f.interpolate(x, scale_factor=2)


def test_multiresunet_is_a_unet_of_multires_blocks_and_res_paths():

    def block(t, x, name):
        parts = [x]
        for i in "123":
            parts.append(t.layer(parts[-1], f"{name}/conv{i}"))
        y = t.norm(t.torch.cat(parts[1:], 1), f"{name}/norm1")
        return t.norm(t.f.relu(y + linear(t, x, f"{name}/shortcut")), f"{name}/norm2")

    def path(t, x, name, length):
        for i in range(1, length + 1):
            y = t.layer(x, f"{name}/conv{i}") + linear(t, x, f"{name}/shortcut{i}")
            x = t.norm(t.f.relu(y), f"{name}/norm{i}")
        return x

    def network(t, x):
        one = block(t, x, "encoder/stage0")
        two = block(t, t.f.max_pool2d(one, 2), "encoder/stage1")
        x = block(t, t.f.max_pool2d(two, 2), "encoder/stage2")
        for i, skip, length in ((1, two, 1), (0, one, 2)):
            name = f"decoder/stage{i}"
            x = t.torch.cat([t.up(x, f"{name}/up"), path(t, skip, f"{name}/path", length)], 1)
            x = block(t, x, f"{name}/block")
        return t.conv(x, "head")

    compare(models.build("multiresunet", num_classes=2, widths=[4, 6, 8]), network, SIZE, padded)


def test_r2unet_is_a_unet_of_recurrent_blocks():

    def recurrent(t, x, name):
        y = 0
        for step in "012":
            y = t.f.relu(t.norm(t.conv(x + y, f"{name}/forward", padding=1), f"{name}/norm{step}"))
        return y

    def block(t, x, name):
        x = t.conv(x, f"{name}/project")
        return x + recurrent(t, recurrent(t, x, f"{name}/layer1"), f"{name}/layer2")

    def network(t, x):
        one = block(t, x, "encoder/stage0")
        two = block(t, t.f.max_pool2d(one, 2), "encoder/stage1")
        x = block(t, t.f.max_pool2d(two, 2), "encoder/stage2")
        for i, skip in ((1, two), (0, one)):
            x = block(t, t.torch.cat([t.up(x, f"decoder/stage{i}/up"), skip], 1), f"decoder/stage{i}/block")
        return t.conv(x, "head")

    compare(models.build("r2unet", num_classes=2, widths=[4, 6, 8]), network, SIZE, padded)


def test_resunetpp_is_figure_1():

    def before(t, x, name, **kwargs):
        """Norm, ReLU and 3x3 convolution."""
        return t.conv(t.f.relu(t.norm(x, f"{name}/norm")), f"{name}/conv", padding=1, **kwargs)

    def unit(t, x, name, stride=1, first=False):
        h = x if first else t.f.relu(t.norm(x, f"{name}/unit/norm1"))
        h = t.conv(h, f"{name}/unit/conv1", stride=stride, padding=1)
        h = t.conv(t.f.relu(t.norm(h, f"{name}/unit/norm2")), f"{name}/unit/conv2", padding=1)
        h = h + t.conv(x, f"{name}/unit/shortcut", stride=stride)
        hidden = t.f.relu(t.conv(h.mean((2, 3), keepdim=True), f"{name}/squeeze/reduce"))
        return h * t.conv(hidden, f"{name}/squeeze/expand").sigmoid()

    def summed(t, x, name):
        y = linear(t, x, f"{name}/local", padding=1)
        for i, rate in ((1, 2), (2, 3)):
            y = y + linear(t, x, f"{name}/atrous{i}", padding=rate, dilation=rate)
        return t.conv(y, f"{name}/project")

    def network(t, x):
        one = unit(t, x, "encoder/stage0", first=True)
        two = unit(t, one, "encoder/stage1", stride=2)
        x = summed(t, unit(t, two, "encoder/stage2", stride=2), "bridge")
        for i, skip in ((1, two), (0, one)):
            name = f"decoder/stage{i}"
            y = t.f.max_pool2d(before(t, skip, f"{name}/attention/skip"), 2) + before(t, x, f"{name}/attention/x")
            x = x * before(t, y, f"{name}/attention/weights")
            x = unit(t, t.torch.cat([doubled(t, x), skip], 1), f"{name}/block")
        return t.conv(summed(t, x, "aspp"), "head")

    compare(models.build("resunetpp", num_classes=2, widths=[4, 6, 8, 10], rates=[2, 3]), network, SIZE, padded)
