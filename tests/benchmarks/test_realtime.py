"""The benchmark of the networks for real time: the front, and a record whose scores are joined anew."""

import json

import pytest
import realtime


def test_the_front_has_what_nothing_beats():
    points = {"quick": (1.0, 0.3), "best": (4.0, 0.9), "slow": (5.0, 0.8), "middle": (2.0, 0.5), "alike": (2.0, 0.4)}
    assert realtime.pareto(points) == ["quick", "middle", "best"]
    assert realtime.pareto({}) == []


def timed():
    """A record of two networks, as the benchmark writes it."""
    form = {"parameters": 1000, "median_seconds": 0.5, "least_seconds": 0.4, "ratio": 2.0}
    form |= {"ratio_low": 1.9, "ratio_high": 2.1}
    networks = {name: {"shapes_mean_iou": None, "full": form, "shapes": form} for name in ("cnn", "fast_scnn")}
    environment = {"date": "2026-11-28", "platform": "cpu", "cpus": 2, "python": "3", "packages": {"jax": "0"}}
    record = {
        "environment": environment,
        "size": [32, 40],
        "small_size": [16, 24],
        "baseline": "cnn",
        "repeats": 3,
        "networks": networks,
    }
    return record | {"load_before": [1.0, 1.0, 1.0], "load_after": [2.0, 2.0, 2.0]}


def test_a_call_that_is_resumed_measures_what_is_left(tmp_path, capsys):
    """Here nothing is: no program is compiled, and times and load are those of the file."""
    here = json.loads(json.dumps(realtime.environment())) | {"date": "2026-11-28", "git": None}
    record = timed() | {"small_size": [32, 40], "repeats": 1, "environment": here}
    record["networks"]["cnn"]["shapes_mean_iou"] = 0.25  # stays, since this call has no scores
    (tmp_path / "out.json").write_text(json.dumps(record))
    assert realtime.main(["--smallest", "--resume", "--out", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out.json").read_text()) == record
    assert "rounds, each with one of `cnn`" in capsys.readouterr().out
    (tmp_path / "out.json").write_text(json.dumps(record | {"size": [64, 64]}))
    with pytest.raises(SystemExit):
        realtime.main(["--smallest", "--resume", "--out", str(tmp_path / "out")])
    assert r"has size [64, 64], this call has [32, 40]" in capsys.readouterr().err
    other = record | {"environment": here | {"cpus": -1, "packages": {}}}
    (tmp_path / "out.json").write_text(json.dumps(other))
    with pytest.raises(SystemExit):
        realtime.main(["--smallest", "--resume", "--out", str(tmp_path / "out")])
    assert "was measured in another environment (cpus, packages); give another --out" in capsys.readouterr().err
    assert json.loads((tmp_path / "out.json").read_text()) == other


def test_times_are_kept_and_scores_joined(tmp_path, capsys):
    record = timed()
    record["networks"]["cnn"]["shapes_mean_iou"] = 0.25  # of an earlier call
    (tmp_path / "timed.json").write_text(json.dumps(record))
    runs = [{"run": "fast_scnn", "validation_mean_iou": 0.4123, "seconds": 60.0}]
    (tmp_path / "scores.json").write_text(json.dumps({"runs": runs}))
    words = ["--timed", str(tmp_path / "timed.json"), "--results", str(tmp_path / "scores.json")]
    assert realtime.main([*words, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "| `fast_scnn` | 0.00 M | 500 | 400 | 2.00 (1.90-2.10) |" in said and "| .412 | yes |" in said
    assert "| .250 |  |" in said and "load of the machine was 1.0 before and 2.0 after" in said
    found = json.loads((tmp_path / "out.json").read_text())["networks"]
    assert found["fast_scnn"]["shapes_mean_iou"] == 0.4123 and found["cnn"]["shapes_mean_iou"] == 0.25
    assert (tmp_path / "out.png").is_file()


def test_larger_forms_are_timed_at_full_size_alone(tmp_path, capsys):
    record = timed()
    record["networks"]["ddrnet-23"] = record["networks"]["cnn"] | {"shapes": None}
    (tmp_path / "timed.json").write_text(json.dumps(record))
    assert realtime.main(["--timed", str(tmp_path / "timed.json"), "--out", str(tmp_path / "out")]) == 0
    assert "| `ddrnet-23` | 0.00 M | 500 | 400 | 2.00 (1.90-2.10) |  |  |  |  |  |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        realtime.main(["--baseline", "ddrnet-23"])
    assert "--baseline ddrnet-23 has no small network" in capsys.readouterr().err


@pytest.mark.parametrize("name", realtime.LARGER)
def test_larger_forms_are_those_of_the_page(name):
    """Its table gives the fields in Python."""
    titles = {"ddrnet-23": "DDRNet-23", "pidnet-m": "PIDNet-M", "pidnet-l": "PIDNet-L", "stdc2": "STDC2-Seg"}
    page = (realtime.ROOT / "docs" / "realtime.md").read_text()
    cells = page.partition(f"| {(titles | {'pp_liteseg-b': 'PP-LiteSeg-B'})[name]} |")[2].partition(" |\n")[0]
    assert eval(f"dict({','.join(cells.strip().strip('`').split('`, `'))})") == realtime.LARGER[name][1]


@pytest.mark.slow  # compiles four programs
def test_it_runs_at_its_smallest(tmp_path):
    assert realtime.main(["--smallest", "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out.json").read_text())["networks"]
    assert all(each[form]["median_seconds"] > 0 for each in found.values() for form in ("full", "shapes"))


def test_the_baseline_is_one_of_the_networks(capsys):
    with pytest.raises(SystemExit):
        realtime.main(["--names", "cnn", "--baseline", "unet"])
    assert "--baseline unet is none of --names cnn" in capsys.readouterr().err
