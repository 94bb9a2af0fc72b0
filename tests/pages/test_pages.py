"""Parts of pages: what text of a user cannot do, where points are drawn, and how pictures keep their size."""

import base64
import html
import io
import json
import math
import re

import numpy as np
import pytest
from PIL import Image

from jaxseg.errors import ConfigError
from jaxseg.pages.cards import (
    WRONG,
    Card,
    Picture,
    color_layer,
    error_layer,
    fitting,
    gallery,
    layer_url,
    photograph,
    reduced,
)
from jaxseg.pages.charts import HEIGHT, WIDTH, Axis, Series, chart
from jaxseg.pages.frame import POLICY, Section, embed, facts, is_page, make_page, write_page
from jaxseg.pages.tables import bar, number, share, swatch, table, text

NASTY = '</script><img src=x onerror="alert(1)">\'"&\x00\u202e'


def opened(url):
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def values_of(figure):
    return json.loads(html.unescape(re.search(r'data-chart="([^"]*)"', figure)[1]))


def test_no_text_of_a_user_becomes_markup(tmp_path):
    figure = chart(NASTY, Axis(NASTY), Axis(NASTY), [Series(NASTY, [(0, 1), (2, 3)], "points", [NASTY, NASTY])], NASTY)
    rows = table(NASTY, (NASTY, "b"), [[swatch(NASTY, (1, 2, 3)), text(NASTY)]], filtered=True)
    card = Card("image-0", NASTY, [NASTY], ["a"], {NASTY: 1.0}, [0], Picture("data:image/png;base64,", ()))
    images = gallery([card], [NASTY], [("a", NASTY)], [NASTY], [(255, 0, 0)])
    page = make_page("jaxseg report", NASTY, facts([(NASTY, NASTY)]), [Section(NASTY, "x", figure + rows + images)])
    assert "<img src=x" not in page and "\x00" not in page and "\u202e" not in page
    assert page.count("<script") == page.count("</script>") == 1
    assert values_of(figure)["series"][0]["labels"] == [NASTY, NASTY]
    assert f'content="{POLICY}"' in page and "http://" not in page and "https://" not in page
    assert json.loads(embed(NASTY)) == NASTY and not {"<", ">"} & set(embed(NASTY))


def test_a_page_replaces_its_own_alone(tmp_path):
    page, other = tmp_path / "report.html", tmp_path / "mine.html"
    for title in ("one", "two"):
        write_page(page, make_page("jaxseg report", title, "", []), "jaxseg report", "give another")
    assert is_page(page, "jaxseg report") and not is_page(page, "jaxseg compare") and "<h1>two</h1>" in page.read_text()
    other.write_text("<html>")
    for file in (other, tmp_path):
        with pytest.raises(ConfigError, match="give another"):
            write_page(file, "", "jaxseg report", "give another")
    assert other.read_text() == "<html>"
    with pytest.raises(ConfigError, match="cannot be written"):
        write_page(other / "x.html", "", "jaxseg report", "")


def test_points_stand_where_the_axes_say():
    figure = chart("t", Axis("x", 0, 10), Axis("y", 0, 100), [Series("a", [(0, 0), (5, 50), (10, 100)])])
    (left, bottom), (middle, half), (right, top) = values_of(figure)["series"][0]["at"]
    assert left < right <= WIDTH and top < bottom <= HEIGHT
    assert middle == pytest.approx((left + right) / 2, abs=0.1) and half == pytest.approx((top + bottom) / 2, abs=0.1)
    logarithmic = chart("t", Axis("x", 1, 100, log=10), Axis("y"), [Series("a", [(1, 1), (10, 2), (100, 3), (0, 4)])])
    found = values_of(logarithmic)["series"][0]
    a, b, c = (x for x, _ in found["at"])  # 0 has no place on a logarithmic axis
    assert b - a == pytest.approx(c - b, abs=0.15) and found["x"] == ["1", "10", "100"]


@pytest.mark.parametrize(
    ("base", "ticks"), [(10, ["8e-4", "1e-3", "1.2e-3", "1.4e-3"]), (2, ["9e-4", "1e-3", "1.1e-3"])]
)
def test_one_value_on_a_logarithmic_axis_has_ticks_around_it(base, ticks):
    # The axis goes from 10^-3.2 to 10^-2.8, or from 2^-0.2 to 2^0.2 times the value.
    figure = chart("t", Axis("x", log=base), Axis("y"), [Series("a", [(1e-3, 0.5)], "points")])
    assert values_of(figure)["series"][0]["at"][0][0] == pytest.approx((52 + WIDTH - 10) / 2, abs=0.1)
    assert re.findall(r'<text x="[^"]*" y="[^"]*" class="mid">([^<]*)<', figure) == ticks


def test_lines_are_thinned_and_values_that_are_not_finite_left_out():
    long = [(i, math.nan if i == 7 else i) for i in range(5000)]
    found = values_of(chart("t", Axis("x"), Axis("y"), [Series("a", long)]))["series"][0]
    assert len(found["x"]) == 400 and (found["x"][0], found["x"][-1]) == ("0", "4999")
    nothing = chart("t", Axis("x"), Axis("y"), [Series("a", [(1, math.inf)]), Series("line", [(0, 0)], plain=True)])
    assert "Nothing was logged" in nothing and "data-chart" not in nothing
    assert "data-chart" in chart("t", Axis("x"), Axis("y"), [Series("a", [(3, 3)])])  # one point has axes, too
    hidden = chart("t", Axis("x"), Axis("y"), [Series("a", [(0, 1)]), Series("b", [(0, 2)], hidden=True)])
    assert re.findall(r'aria-pressed="(\w+)"', hidden) == ["true", "false"] and 'class="h1 off"' in hidden


def test_cells_are_sorted_by_their_numbers():
    made = table("t", ("name", "share"), [[text("a"), share(0.5)], [text("b"), share(math.nan)]])
    assert 'data-v="50.0">50.00</td>' in made and 'data-v="">–</td>' in made and 'type="search"' not in made
    assert 'type="search"' in table("t", ("name",), [[text(i)] for i in range(13)])
    assert "7 more rows" in table("t", ("n",), [[number(i, "{:d}")] for i in range(2007)])
    assert "whisker" in bar(0.5, 0.4, 0.6).html and "whisker" not in bar(0.5, math.nan, math.nan).html


def test_reduced_maps_keep_their_classes():
    label = np.arange(12).reshape(3, 4)
    assert np.array_equal(reduced(label, 8), label)
    assert np.array_equal(reduced(np.repeat(np.repeat(label, 4, 0), 4, 1), 4), label)
    assert reduced(np.zeros((1000, 10)), 100).shape == (100, 1)


def test_layers_are_transparent_where_nothing_is_wrong_or_drawn():
    truth, prediction = np.array([[0, 1, 255, 1]], np.uint8), np.array([[0, 1, 1, 0]], np.uint8)
    errors = error_layer(truth, prediction, 255)
    assert errors[0, :, 3].tolist() == [0, 0, 160, 255] and tuple(errors[0, 3]) == WRONG
    colors = color_layer(truth, [(0, 0, 0), (200, 10, 20)])
    assert colors[0].tolist() == [[0, 0, 0, 0], [200, 10, 20, 255], [200, 200, 200, 0], [200, 10, 20, 255]]
    with opened(layer_url(colors, 8)) as stored:
        assert np.array_equal(np.asarray(stored.convert("RGBA")), colors)


def test_pictures_keep_the_limit_of_the_page():
    image = np.random.default_rng(0).integers(0, 256, (600, 300, 3)).astype(np.uint8)

    def make(side):
        return {"a": Picture(photograph(image, side), ())}

    whole = len(make(512)["a"].image)
    with opened(fitting(make, whole)["a"].image) as picture:
        assert picture.size == (256, 512) and picture.format == "JPEG"
    with opened(fitting(make, whole // 3)["a"].image) as picture:
        assert max(picture.size) < 512
    with opened(photograph(image[:100, :100], 512)) as small:
        assert small.format == "PNG" and np.array_equal(np.asarray(small), image[:100, :100])
