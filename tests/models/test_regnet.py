"""RegNets against timm and torchvision: their widths, depths and groups, and the numbers of a small one."""

import pytest
from helpers import oracles, parity
from helpers.variables import count_parameters, initialised

from jaxseg.errors import ArgumentError
from jaxseg.models import encoders
from jaxseg.models.encoders.regnet import RegNet
from jaxseg.pretrained import regnet as rules

SMALL = {"blocks": 6, "initial": 8, "slope": 8.0, "factor": 2.0, "group_width": 8, "stem": 8}


@pytest.mark.parametrize("gated", [False, True])
def test_pyramid_is_timms(gated):
    timm = oracles.timm()
    form = {"depth": 6, "w0": 8, "wa": 8.0, "wm": 2.0, "group_size": 8, "stem_width": 8, "se_ratio": 0.25 * gated}
    module = timm.models.regnet.RegNet(timm.models.regnet.RegNetCfg(**form), num_classes=2)
    encoder = RegNet(**SMALL, gated=gated)
    assert encoder.depths == (1, 1, 3, 1) and encoder.widths == (8, 8, 16, 32, 64)
    module.forward = lambda x: module.forward_intermediates(x, intermediates_only=True)
    parity.check_eval(encoder, module, rules.timm(), ((33, 47),), ours=list, theirs=list)


def test_pyramid_is_torchvisions():
    regnet = oracles.torchvision().models.regnet
    params = regnet.BlockParams.from_init_params(depth=6, w_0=8, w_a=8.0, w_m=2.0, group_width=8, se_ratio=0.25)
    module = regnet.RegNet(params, num_classes=2, stem_width=8)

    def forward(x):
        pyramid = [module.stem(x)]
        for block in module.trunk_output:
            pyramid.append(block(pyramid[-1]))
        return pyramid

    module.forward = forward
    encoder = RegNet(**SMALL, gated=True, rounding="torchvision")
    parity.check_eval(encoder, module, rules.torchvision(), ((33, 47),), ours=list, theirs=list)


def test_every_network_has_the_stages_of_timm_and_of_torchvision():
    timm, torchvision = oracles.timm().models.regnet, oracles.torchvision().models.regnet
    for ours, theirs in rules._NAMES.items():
        encoder, c = encoders.build(ours), timm.model_cfgs[theirs]
        widths, stages, groups = timm.generate_regnet(c.wa, c.w0, c.wm, c.depth, c.group_size)
        depths = [widths.count(width) for width in dict.fromkeys(widths)]
        widths, groups = timm.adjust_widths_groups_comp(list(dict.fromkeys(widths)), [1.0] * stages, groups)
        assert [(w, n, g) for w, n, g in encoder._stages] == [
            (w, n, w // g) for w, n, g in zip(widths, depths, groups)
        ], ours
        assert encoder.gated == (c.se_ratio > 0) and encoder.strides == (2, 4, 8, 16, 32)
        fields = {"depth": c.depth, "w_0": c.w0, "w_a": c.wa, "w_m": c.wm, "group_width": c.group_size}
        made = torchvision.BlockParams.from_init_params(**fields)
        other = encoders.build(ours, rounding="torchvision")
        assert (list(other.widths[1:]), list(other.depths)) == (made.widths, made.depths), ours
        if hasattr(torchvision, ours):  # the others have no weights there
            alike = ours.removeprefix("regnet_") not in ("x_400mf", "y_800mf", "y_8gf")
            assert (other.widths == encoder.widths) == alike


def test_the_count_is_the_published_one():
    encoder = encoders.build("regnet_y_400mf")
    assert count_parameters(encoder) + 1000 * 440 + 1000 == 4_344_144  # of timm and torchvision


def test_dilation_replaces_strides_and_numbers_that_make_no_network_are_refused():
    encoder = RegNet(**SMALL, output_stride=8)
    assert encoder.strides == (2, 4, 8, 8, 8)
    pyramid, _ = initialised(encoder, ((1, 33, 47, 3),))
    assert [x.shape[1:3] for x in pyramid] == [(17, 24), (9, 12), (5, 6), (5, 6), (5, 6)]
    with pytest.raises(ArgumentError, match="factor must be above 1"):
        _ = RegNet(factor=1.0).widths
