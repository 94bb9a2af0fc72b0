"""The numbers in the tables of README and docs are those of the files in benchmarks/results, row by row.

A table belongs to the files that its section names, such as `benchmarks/results/cpu-crf.md` or the `--out` of a
command. All numbers of a row, as they are printed there, are to be in one row of those files: rounded to its digits,
per cent for shares. A row with the label of a row in a file is compared with that one alone.
"""

import json
import re
from pathlib import Path

import pytest

from jaxseg.sweep.statistics import paired_difference

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GENERATED = {"docs/measured.md"}  # tests/benchmarks/test_results.py compares it with the files as a whole
# {(page, section, number of the table in it): files} where the section names none; {...: columns} where some columns
# are of no file, such as notes of an earlier run, or are explained below the table.
FILES = {
    ("README.md", "What is in it", 1): ("cpu-jax-0.12-compare_torch", "cpu-compare_torch"),
    ("docs/ablations.md", "Residual shortcuts", 0): ("ablations/residual/table",),
    ("docs/cross-validation.md", "Measured", 0): ("cross_validation-nuclei",),
    ("docs/export.md", "Smaller files", 0): ("exported-unet",),
    ("docs/multilabel.md", "Measured", 0): ("multilabel-shapes", "multilabel-nuclei"),
    ("docs/performance.md", "Memory", 0): ("cpu-remat",),
    ("docs/performance.md", "Memory", 1): ("cpu-jax-0.12-compare_torch",),
    ("docs/plan.md", "Shapes", 0): ("plan-shapes", "effects-shapes"),
    ("docs/predicting.md", "Averaging", 0): ("ensembles-shapes",),
    ("docs/quantised.md", "What computes", 0): ("quantised-times",),
    ("docs/quantised.md", "Measured", 0): ("quantised-shapes", "quantised-lraspp"),
    ("docs/quantised.md", "Measured", 1): ("quantised-nuclei",),
    ("docs/results.md", "Adversarial term and autoencoder", 0): ("effects-shapes",),
    ("docs/results.md", "CamVid", 0): ("camvid-cpu",),
    ("docs/results.md", "Shapes", 0): ("shapes-cpu",),
    ("docs/scaling.md", "A huge image, whole", 0): ("scaling",),
    ("docs/scaling.md", "On paper", 0): ("scaling",),
    ("docs/semi.md", "When it pays", 0): ("semi-shapes",),
    ("docs/semi.md", "When it pays", 1): ("semi-nuclei",),
}
COLUMNS = {
    ("docs/many-classes.md", "Compared on CamVid", 0): (1, 3, 4, 5, 6, 7, 8, 9),  # 2: the test below
    ("docs/performance.md", "Memory", 0): (1, 2),  # 3 is the ratio of two
    ("docs/performance.md", "Memory", 1): (2,),  # 1: a former version of the file
    ("docs/plan.md", "Nuclei", 0): (2, 3, 4),
    ("docs/predicting.md", "Averaging", 0): (1, 2, 3),
    ("docs/pretrained.md", "Measured", 0): (4, 5),
}
# Tables whose rows join the rows of one label in several files.
JOINED = {("README.md", "What is in it", 1), ("docs/performance.md", "Memory", 0)}
# Tables that sum up rows of several files: {table: {first cell of a row: where each number with a point is from}}. That
# is (file, first cell of a row there), or the number itself where it is a threshold or a bound.
SUMMARIES = {
    ("docs/advice.md", "Which network?", 0): {
        "the quickest good result": [("shapes-cpu", "unet")],
        "many layers": [("ablations/residual/table", "preact"), ("ablations/residual/table", "preact-plain")],
        "few parameters and operations": [("zoo", "lraspp")],
        "attention in the decoder": ["0.5"],
        "up-sampling": [("ablations/upsampling/table", "bilinear"), ("ablations/upsampling/table", "transposed")],
        "objects one by one": [
            *(".5", ("nuclei-objects", "components, cleaned and split")),
            ("nuclei-objects", "components"),
        ],
    },
    ("docs/advice.md", "What raises the score of a trained network?", 0): {
        "a second run averaged in, five runs in all": [("ensembles-shapes", x) for x in ("1", "2", "5", "in turn")],
        "--average flips": [("nuclei-tiles", "whole"), ("nuclei-tiles", "flips")],
        "--average flips:hv,scales:.75-1-1.25": [
            *(("nuclei-tiles", "whole"), ("nuclei-tiles", "flips:hv,scales:.75-1-1.25")),
        ],
        "a dense crf behind a network of stride 8": [("crf-nuclei", "deeplabv1-small")],
        "jaxseg quantise, 8 bits": ["0.5"],
    },
}
# How a page names what a file names otherwise.
NAMES = {
    "u-net, widths 32-256": "unet",
    "resunet, widths 32-256": "resunet",
    "deeplabv3+ over resnet-50": "deeplabv3plus",
    "segformer-b0": "segformer",
}
# Tables of numbers that no file holds as they are: sums over the rows of one, and what was noted by hand, from commands
# that the section names. A new table of numbers needs a file, or a line here.
WITHOUT = {
    ("docs/data.md", "Labels", 0),
    ("docs/explain.md", "Can a map be trusted?", 0),
    ("docs/explain.md", "Can a map be trusted?", 1),
    ("docs/fine-tuning.md", "A vision transformer", 0),
    ("docs/fine-tuning.md", "Measured", 0),
    ("docs/fine-tuning.md", "Measured", 1),
    ("docs/losses.md", "Many classes", 0),
    ("docs/medical.md", "Measured", 0),
    ("docs/memory.md", "Before the first step", 0),
    ("docs/networks.md", "Size and score", 0),
    ("docs/networks.md", "Networks", 0),  # parameters as their papers print them
    ("docs/performance.md", "Performance", 3),
    ("docs/results.md", "Images from noise", 0),
    ("docs/security.md", "Measured", 0),
    ("docs/smaller.md", "Measured", 0),
    ("docs/uncertainty.md", "Probabilities that mean what they say", 0),
}

NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?![\w.])")


def sections(text):
    """Yields (heading, text) of each section."""
    heading, lines = "", []
    for line in re.sub(r"```.*?```", "", text, flags=re.DOTALL).splitlines():
        if line.startswith("#"):
            yield heading, "\n".join(lines)
            heading, lines = line.strip("# "), []
        else:
            lines.append(line)
    yield heading, "\n".join(lines)


def tables(text):
    """Returns the tables of a text: lists of rows, each a list of cells; the first row has the names of the columns."""
    found = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    split = [[re.split(r"(?<!\\)\|", line)[1:-1] for line in each.splitlines()] for each in found]
    return [[[cell.strip() for cell in line] for line in (rows[0], *rows[2:])] for rows in split]


def measured(rows):
    """Whether a table has measurements: a cell is a number with a point, of three digits, with a unit or a whole."""
    unit = r"(%|(GB|MB|kB|G|M|ms|s|thousand|million|of \d[\d,]*)\b)"
    number = rf"[-+]?(\d[\d,]*\.\d+|\.\d+|\d[\d,]{{2,}}|\d[\d,]*(?= {unit}))"
    form = re.compile(rf"{number}( ?(%|MB|kB|ms|s)\b.*|( ?{unit})?( [±\[(/].*)?)")
    return any(form.fullmatch(cell) for row in rows for cell in row[1:])


def plain(label):
    label = re.sub(r"[`*†]|\(baseline\)", "", label).strip().lower()
    return NAMES[label] if label in NAMES else label


def numbers(cells):
    """Returns (value, half of the last digit) of every number in the cells."""
    found = []
    for token in NUMBER.findall(" ".join(cells)):
        digits = token.replace(",", "").rstrip(".")
        decimals = len(digits.partition(".")[2])
        found.append((float(digits), 0.5 * 10**-decimals))
    return found


def within(row, source):
    """Whether all numbers of a row are in the row of a file, each of these used once."""
    left = [value for value, _ in numbers(source)]
    for value, reach in numbers(row):
        fits = [x for by in (1, 100) for x in left if abs(x * by - value) <= reach * 1.001]
        if not fits:
            return False
        left.remove(fits[0])
    return True


def stems():
    files = [path.relative_to(RESULTS).with_suffix("") for path in RESULTS.rglob("*.md")]
    return {str(file): RESULTS / f"{file}.md" for file in files}


def named(text):
    """Returns the result files that a text names."""
    return [stem for stem in stems() if re.search(rf"(?<![\w.-]){re.escape(stem)}(?![\w-])", text)]


def rows_of(stem):
    """Returns the rows of the tables of a file, and for each run in its JSON a row with the scores of the classes."""
    rows = [row for table in tables(stems()[stem].read_text(encoding="utf-8")) for row in table[1:]]
    path = RESULTS / f"{stem}.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for run in record["runs"] if "runs" in record else ():
        if "classes" in run:
            shares = [run["mean_iou"], run["pixel_accuracy"], *(each["iou"] or 0.0 for each in run["classes"])]
            minutes = [] if run["seconds"] is None else [f"{run['seconds'] / 60:.3f}"]
            rows.append([run["run"], str(run["parameters"]), *minutes, *(f"{share:.6f}" for share in shares)])
    return rows


def summed_up(row, sources):
    """Whether each number with a point in a row that sums up is in the rows of files that it is from."""
    pointed = [word for word in NUMBER.findall(" ".join(row[1:])) if "." in word]
    cells = []
    for source in sources[plain(row[0])] if plain(row[0]) in sources else ():
        if isinstance(source, str):
            cells.append(source)
        else:
            rows = [each for each in rows_of(source[0]) if plain(each[0]) == source[1]]
            assert rows, f"no row of {source[0]} has the first cell {source[1]}"
            cells += [cell for each in rows for cell in each[1:]]
    return within(pointed, cells)


def misfits(key, text, table):
    """Returns the rows of a table with a number that is in no row of its files."""
    if key in SUMMARIES:
        return [row for row in table[1:] if not summed_up(row, SUMMARIES[key])]
    files = FILES[key] if key in FILES else named(text)
    assert files, f"the section names no file of benchmarks/results: {key}"
    sources = [row for file in files for row in rows_of(file)]
    found = []
    for row in table[1:]:
        cells = [row[i] for i in COLUMNS[key]] if key in COLUMNS else row[not NUMBER.fullmatch(row[0]) :]
        labelled = [each for each in sources if plain(each[0]).removesuffix("-small") == plain(row[0])]
        labelled = [each for each in labelled if plain(each[1]) == plain(row[1])] or labelled
        if key in JOINED:
            labelled = [[cell for each in labelled for cell in each]]
        if not any(within(cells, each) for each in labelled or sources):
            found.append(row)
    return found


def all_tables():
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        for heading, text in sections(page.read_text(encoding="utf-8")) if name not in GENERATED else ():
            for number, table in enumerate(tables(text)):
                if measured(table[1:]) and (name, heading, number) not in WITHOUT:
                    yield (name, heading, number), text, table


@pytest.mark.parametrize(("key", "text", "table"), [pytest.param(*each, id=f"{each[0]}") for each in all_tables()])
def test_each_row_is_in_the_files_of_its_section(key, text, table):
    assert misfits(key, text, table) == []


def test_a_wrong_score_and_a_wrong_number_of_parameters_are_found():
    found = {key: (text, table) for key, text, table in all_tables()}
    for key, before, after in (
        (("docs/results.md", "Shapes", 0), ".925", ".915"),
        (("docs/results.md", "Shapes", 0), "482,822", "31,042,822"),
        (("docs/results.md", "Shapes", 0), "7.1 (one core)", "8.1 (one core)"),
        (("README.md", "What is in it", 1), "1.62", "1.26"),
        (("docs/ablations.md", "Residual shortcuts", 0), "76.12 ± 3.84", "76.12 ± 3.48"),
        (("docs/advice.md", "Which network?", 0), "12.4 ± 1.4", "10.7 ± 1.0"),  # of another variant in the same file
        (("docs/advice.md", "Which network?", 0), ".916 in", ".914 in"),
    ):
        text, table = found[key]
        wrong = [[cell.replace(before, after) for cell in row] for row in table]
        assert wrong != table and len(misfits(key, text, wrong)) == 1


def test_tables_of_measurements_are_known_by_their_numbers_and_units():
    for cell in (
        ".5",
        "12,345",
        "96.4 %",
        "12 GB",
        "16 thousand",
        "35 million",
        "62 of 193",
        "76.1 ± 3.8",
        "3 ms, alone",
    ):
        assert measured([["unet", cell]]), cell
    for cell in ("", "12", "yes", "3 of the 5 heads are given", "ResNet-50", "2 in all"):
        assert not measured([["unet", cell]]), cell


def test_no_list_of_this_file_names_a_table_that_is_gone():
    names = {
        (str(page.relative_to(ROOT)), heading, number)
        for page in PAGES
        for heading, text in sections(page.read_text(encoding="utf-8"))
        for number, _ in enumerate(tables(text))
    }
    assert {*FILES, *COLUMNS, *SUMMARIES, *JOINED, *WITHOUT} <= names


def table_of(page, heading, number):
    [text] = [text for name, text in sections((ROOT / page).read_text(encoding="utf-8")) if name == heading]
    return tables(text)[number][1:]


def test_the_differences_of_class_imbalance_are_those_of_its_seeds():
    rows = json.loads((RESULTS / "class_imbalance-camvid.json").read_text())["rows"]
    scores = {name: dict(enumerate(100 * share for share in row["mean_iou"])) for name, row in rows.items()}
    expected = [paired_difference(scores[name], scores["none"]) for name in rows if name != "none"]
    shown = [row[2] for row in table_of("docs/many-classes.md", "Compared on CamVid", 0)[1:]]
    assert shown == [f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]" for mean, low, high, _ in expected]


def test_the_sums_over_layers_are_those_of_the_file():
    networks = json.loads((RESULTS / "cpu-operations.json").read_text())["networks"]
    for row, layers in zip(table_of("docs/performance.md", "Performance", 3), networks.values(), strict=True):
        more = dict.fromkeys((layer["kind"] for layer in layers), 0.0)
        for layer in layers:
            more[layer["kind"]] += 1e3 * (layer["step"]["ours"] - layer["step"]["torch"])
        numbers_shown = [f"{value:.0f}" for value in (sum(more.values()), more["convolution"], more["1x1 convolution"])]
        assert row[1:4] == numbers_shown


def test_the_first_command_reaches_what_the_readme_says():
    [run] = [run for run in json.loads((RESULTS / "shapes-cpu.json").read_text())["runs"] if run["run"] == "resunet"]
    assert run["command"] == "python -m jaxseg.train --config experiments/resunet.py"
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    score = f"{run['mean_iou']:.3f}".lstrip("0")
    assert f"in {run['seconds'] / 60:.0f} minutes on two CPU cores, to a validation mIoU of {score}." in readme
