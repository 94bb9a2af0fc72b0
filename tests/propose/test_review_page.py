"""The review page in a headless Chromium, from file://, and what a text inside it cannot do."""

import json

import numpy as np
import pytest
from helpers.browser import chromium

from jaxseg.data.proposals import MADE_BY, Decision, Row, read_decisions
from jaxseg.pages.frame import is_page
from jaxseg.propose.page import PROGRAM, Card, make_page

COLORS = ((0, 0, 0), (200, 80, 20))
NASTY = '</script><img src=x onerror="document.title=1">'


def write_page(folder, names, decisions=None, digests=None):
    """Writes review.html of random pictures into a folder."""
    rng, cards = np.random.default_rng(0), []
    for i, name in enumerate(names, 1):
        row = Row(i, name, folder / f"{name}.png", "masks/x.png", "confidence/x.png", 0.9, None if i == 1 else 1 / i)
        classes = np.zeros((24, 32), np.uint8)
        classes[6:18, 8:24] = 1
        image = rng.integers(0, 255, (24, 32, 3)).astype(np.uint8)
        digest = digests[name] if digests else f"digest {i}"
        cards.append(Card.of(row, digest, image, classes, rng.random((24, 32)).astype(np.float32), COLORS))
    page = folder / "review.html"
    page.write_text(make_page(cards, ("ground", NASTY), COLORS, decisions or {}, "unet by entropy", str(folder)))
    return page


def test_no_text_of_a_user_ends_the_element(tmp_path):
    page = write_page(tmp_path, [NASTY, "ü"])
    text = page.read_text()
    assert is_page(page, PROGRAM) and text.count("</script>") == 2 and NASTY not in text
    content = json.loads(text.partition('type="application/json">')[2].partition("</script>")[0])
    assert [p["name"] for p in content["proposals"]] == [NASTY, "ü"] and content["classes"][1] == NASTY
    assert "http://" not in text and "https://" not in text


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


def test_a_person_decides(browser, tmp_path):
    names = ["a", NASTY, "c", "d"]
    page_file = write_page(tmp_path, names, {"d": Decision("keep", "", "digest 4"), "c": Decision("keep", "", "old")})
    page, said = browser.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.extend([] if request.url.startswith(("file:", "data:")) else [request.url]))
    page.goto(page_file.as_uri())
    card = page.locator("article")
    assert card.count() == 4 and page.title() == "Proposed masks"

    def state():
        return [card.nth(i).get_attribute("data-decision") for i in range(4)]

    assert state() == ["", "", "", "keep"]  # another mask of c was kept
    assert page.locator("#count").inner_text() == "1 kept, 0 rejected, 3 undecided"
    # what the browser remembers of an older mask leaves the decision about this one as it is
    page.evaluate("localStorage.setItem(store, JSON.stringify({ d: { decision: 'reject', note: '', mask: 'older' } }))")
    page.reload()
    assert state() == ["", "", "", "keep"]
    assert page.locator(".picture img").evaluate_all(
        "(found) => found.every((i) => i.complete && i.naturalWidth === 32)"
    )
    # keys: to the first, keep it, reject the next, and write a note to it
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("r")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("n")
    page.keyboard.type("looks like kru")
    page.keyboard.press("Escape")
    assert state() == ["keep", "reject", "", "keep"]
    page.get_by_role("button", name="Reject d").click()
    assert (
        state()[3] == "reject" and page.get_by_role("button", name="Reject d").get_attribute("aria-pressed") == "true"
    )
    # the map of confidence, and the masks hidden and back
    page.keyboard.press("c")
    assert page.locator(".sure").first.is_visible() and page.locator("#confidence").is_checked()
    page.keyboard.press("c")
    page.keyboard.press("m")
    assert page.locator(".overlay").first.evaluate("(i) => getComputedStyle(i).opacity") == "0"
    page.keyboard.press("m")
    assert page.locator(".overlay").first.evaluate("(i) => getComputedStyle(i).opacity") == "0.5"
    seen = {}
    for which in ("all", "open", "keep", "reject", "note"):
        page.select_option("#filter", which)
        seen[which] = [i for i in range(4) if card.nth(i).is_visible()]
    assert seen == {"all": [0, 1, 2, 3], "open": [2], "keep": [0], "reject": [1, 3], "note": [1]}
    page.reload()
    assert state() == ["keep", "reject", "", "reject"]
    assert page.locator(".note input").nth(1).input_value() == "looks like kru"
    page.locator("article").nth(3).focus()
    page.keyboard.press("u")
    page.reload()
    assert state() == ["keep", "reject", "", ""]  # decisions.json has d as kept, and that was taken back
    with page.expect_download() as download:
        page.get_by_role("button", name="Save decisions.json").click()
    assert download.value.suggested_filename == "decisions.json"
    download.value.save_as(tmp_path / "decisions.json")
    classes, decisions = read_decisions(tmp_path)
    assert classes == ("ground", NASTY)
    assert decisions == {
        "a": Decision("keep", "", "digest 1"),
        NASTY: Decision("reject", "looks like kru", "digest 2"),
    }
    assert json.loads((tmp_path / "decisions.json").read_text())["made_by"] == MADE_BY
    assert said == []
    page.close()
