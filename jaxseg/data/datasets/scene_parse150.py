"""ADE20K as TFDS provides it (scene_parse150): the 100 object classes of the Places challenge 2017.

B. Zhou et al., "Semantic understanding of scenes through the ADE20K dataset", IJCV 2019. Despite its name, TFDS builds
this data set from the challenge's *instance* annotations: the red channel is one of 100 classes of countable objects,
numbered from 1 as in the challenge's instanceInfo100 list, and the green channel the instance; walls, sky and other
surfaces are 0, which is ignored here. (For the 150 classes of scene parsing, arrange ADEChallengeData2016 as a folder
for data.source=folder.) TFDS calls the official validation images "test": here they are both "val" and "test", as is
usual for ADE20K.
"""

from jaxseg.data.datasets import Dataset
from jaxseg.data.datasets.voc2012 import palette
from jaxseg.types import IGNORE

_NAMES = """
    bed, windowpane, cabinet, person, door, table, curtain, chair, car, painting, sofa, shelf, mirror, armchair,
    seat, fence, desk, wardrobe, lamp, bathtub, railing, cushion, box, column, signboard, chest_of_drawers, counter,
    sink, fireplace, refrigerator, stairs, case, pool_table, pillow, screen_door, bookcase, coffee_table, toilet,
    flower, book, bench, countertop, stove, palm, kitchen_island, computer, swivel_chair, boat, arcade_machine, bus,
    towel, light, truck, chandelier, awning, streetlight, booth, television_receiver, airplane, apparel, pole,
    bannister, ottoman, bottle, van, ship, fountain, washer, plaything, stool, barrel, basket, bag, minibike, oven,
    ball, food, step, trade_name, microwave, pot, animal, bicycle, dishwasher, screen, sculpture, hood, sconce,
    vase, traffic_light, tray, ashcan, fan, plate, monitor, bulletin_board, radiator, glass, clock, flag
"""

DATASET = Dataset(
    name="scene_parse150",
    classes=tuple(name.strip().replace("_", " ") for name in _NAMES.split(",")),
    colors=palette(101)[1:],
    image="image",
    mask="annotation",
    file_name=None,
    labels={0: IGNORE, **{raw: raw - 1 for raw in range(1, 101)}},
    others_ignored=False,
    ignore=0,
    splits={"train": "train", "val": "test", "test": "test"},
    folders=("images", "annotations_instance"),
    get_it="Unpack images.tar and annotations_instance.tar of ChallengeData2017 from sceneparsing.csail.mit.edu into "
    "one folder and give it as data.dir; or leave data.dir empty and let TFDS download it (4 GB), which needs "
    "TensorFlow once.",
)
