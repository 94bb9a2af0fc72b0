"""jaxseg: semantic image segmentation in JAX and Flax.

    model = jaxseg.create_model("unet", encoder="resnet50", weights="imagenet", num_classes=3)
    run = jaxseg.train("experiments/resunet.py:folder", **{"data.dir": "photos"})
    run = jaxseg.load("runs/resunet-folder")
    run.predict("photo.jpg")
    run.evaluate("test")

The names in `__all__` are what other code can rely on. Each is imported when it is asked for, so that importing the
package is quick and loads no JAX. To read the code, start at `experiments/resunet.py`, then `jaxseg/train.py`,
`jaxseg/step.py` and `jaxseg/models/resunet.py`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxseg.errors import JaxsegError, nearest

# What type checkers and editors see, which do not run `__getattr__` below.
if TYPE_CHECKING:
    from jaxseg import losses, metrics, models, nn
    from jaxseg.api.create import SegmentationModel, create_model
    from jaxseg.api.lists import list_encoders, list_models
    from jaxseg.api.start import TrainModule
    from jaxseg.inference import Evaluation, Segmentation, TrainedRun, load
    from jaxseg.models.ann import ANN
    from jaxseg.models.attention_decoder import AttentionDecoder
    from jaxseg.models.attention_unet import AttentionUNet
    from jaxseg.models.autoencoder import Autoencoder
    from jaxseg.models.bisenetv1 import BiSeNetV1
    from jaxseg.models.bisenetv2 import BiSeNetV2
    from jaxseg.models.ccnet import CCNet
    from jaxseg.models.cnn import CNN
    from jaxseg.models.danet import DANet
    from jaxseg.models.dcgan import DCGAN
    from jaxseg.models.ddrnet import DDRNet
    from jaxseg.models.deeplabv1 import DeepLabV1
    from jaxseg.models.deeplabv2 import DeepLabV2
    from jaxseg.models.deeplabv3 import DeepLabV3
    from jaxseg.models.deeplabv3plus import DeepLabV3Plus
    from jaxseg.models.dpt import DPT
    from jaxseg.models.encnet import EncNet
    from jaxseg.models.encoder_decoder import EncoderDecoder
    from jaxseg.models.enet import ENet
    from jaxseg.models.eomt import EoMT
    from jaxseg.models.erfnet import ERFNet
    from jaxseg.models.fast_scnn import FastSCNN
    from jaxseg.models.fc_densenet import FCDenseNet
    from jaxseg.models.fcn import FCN
    from jaxseg.models.fcn_head import FCNHead
    from jaxseg.models.fpn import FPN
    from jaxseg.models.gcnet import GCNet
    from jaxseg.models.icnet import ICNet
    from jaxseg.models.isanet import ISANet
    from jaxseg.models.knet import KNet
    from jaxseg.models.linear_head import LinearHead
    from jaxseg.models.linknet import LinkNet
    from jaxseg.models.lraspp import LRASPP
    from jaxseg.models.manet import MANet
    from jaxseg.models.mask2former import Mask2Former
    from jaxseg.models.multiresunet import MultiResUNet
    from jaxseg.models.nnunet import NNUNet
    from jaxseg.models.nonlocal_net import NonLocalNet
    from jaxseg.models.ocrnet import OCRNet
    from jaxseg.models.pan import PAN
    from jaxseg.models.pidnet import PIDNet
    from jaxseg.models.pointrend import PointRend
    from jaxseg.models.pp_liteseg import PPLiteSeg
    from jaxseg.models.pspnet import PSPNet
    from jaxseg.models.r2unet import R2UNet
    from jaxseg.models.resunet import ResUNet
    from jaxseg.models.resunetpp import ResUNetPP
    from jaxseg.models.segformer import SegFormer
    from jaxseg.models.segmenter import Segmenter
    from jaxseg.models.segnet import SegNet
    from jaxseg.models.segnext import SegNeXt
    from jaxseg.models.stdc import STDCSeg
    from jaxseg.models.transunet import TransUNet
    from jaxseg.models.u2net import U2Net
    from jaxseg.models.unet import UNet
    from jaxseg.models.unetplusplus import UNetPlusPlus
    from jaxseg.models.unetr import UNETR
    from jaxseg.models.upernet import UPerNet
    from jaxseg.models.vgg_head import VGGHead

    train: TrainModule

__version__ = "0.1.0"

__all__ = [
    "ANN",
    "CNN",
    "DCGAN",
    "DPT",
    "FCN",
    "FPN",
    "LRASPP",
    "PAN",
    "UNETR",
    "AttentionDecoder",
    "AttentionUNet",
    "Autoencoder",
    "BiSeNetV1",
    "BiSeNetV2",
    "CCNet",
    "DANet",
    "DDRNet",
    "DeepLabV1",
    "DeepLabV2",
    "DeepLabV3",
    "DeepLabV3Plus",
    "ENet",
    "ERFNet",
    "EncNet",
    "EncoderDecoder",
    "EoMT",
    "Evaluation",
    "FCDenseNet",
    "FCNHead",
    "FastSCNN",
    "GCNet",
    "ICNet",
    "ISANet",
    "JaxsegError",
    "KNet",
    "LinearHead",
    "LinkNet",
    "MANet",
    "Mask2Former",
    "MultiResUNet",
    "NNUNet",
    "NonLocalNet",
    "OCRNet",
    "PIDNet",
    "PPLiteSeg",
    "PSPNet",
    "PointRend",
    "R2UNet",
    "ResUNet",
    "ResUNetPP",
    "STDCSeg",
    "SegFormer",
    "SegNeXt",
    "SegNet",
    "Segmentation",
    "SegmentationModel",
    "Segmenter",
    "TrainedRun",
    "TransUNet",
    "U2Net",
    "UNet",
    "UNetPlusPlus",
    "UPerNet",
    "VGGHead",
    "__version__",
    "create_model",
    "list_encoders",
    "list_models",
    "load",
    "losses",
    "metrics",
    "models",
    "nn",
    "train",
]

_MODULES = ("losses", "metrics", "models", "nn", "train")
# Name -> the module that defines it; the other names of `__all__` are classes of networks.
_PLACES = {
    "Evaluation": "inference",
    "Segmentation": "inference",
    "SegmentationModel": "api.create",
    "TrainedRun": "inference",
    "create_model": "api.create",
    "list_encoders": "api.lists",
    "list_models": "api.lists",
    "load": "inference",
}


def __getattr__(name: str) -> Any:
    """Imports a name of `__all__` at its first use."""
    if name not in __all__:
        hint = "" if name.startswith("_") else nearest(name, __all__, listing=False)
        raise AttributeError(f"jaxseg has no attribute {name!r}.{hint}")
    if name in _MODULES:
        return importlib.import_module(f"jaxseg.{name}")
    if name in _PLACES:
        value = getattr(importlib.import_module(f"jaxseg.{_PLACES[name]}"), name)
    else:
        value = importlib.import_module("jaxseg.models").network_class(name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
