"""The picture of a trajectory's credit: well-formed, complete, and safe with whatever a model wrote."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewright.core.errors import InputError
from rewright.credit import match, turn_rewards
from rewright.credit.settings import TurnCredit
from rewright.reports.credit_picture import credit_drawing, drawing_of
from rewright.reports.stored_credit import Stored, credit

SVG = "{http://www.w3.org/2000/svg}"
ADA, BEN = {"name": "lookup", "arguments": {"name": "Ada"}}, {"name": "lookup", "arguments": {"name": "Ben"}}
ORANGE = "#b4540a"


def draw(turns, golds, **options):
    found = match([call for turn in turns for call in turn], golds, assignment=options.pop("assignment", "optimal"))
    return ET.fromstring(credit_drawing(turns, golds, found, turn_rewards(turns, golds), **options).svg())


def texts(root):
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


def coloured(root, colour):
    return [span.text for span in root.iter(f"{SVG}tspan") if span.get("fill") == colour]


def test_every_turn_call_gold_call_and_match_is_drawn():
    root = draw([[ADA], [BEN, {"name": "search", "arguments": {}}], []], [ADA, BEN], advantages=[0.5, -0.25, 0.0],
                texts=["", "", "It is 77."], title="How old?")  # fmt: skip
    shown = texts(root)
    assert "How old?" in shown
    for word in ("turn 1", "turn 2", "turn 3", "search", "no call  It is 77.", "-0.25", 'name: "Ada"'):
        assert word in shown, word
    assert len(list(root.iter(f"{SVG}path"))) == 2
    assert shown.count("1.00") >= 4  # two lines, two calls
    assert "3 calls, 2 gold calls, 2 matched, 2 exactly · trajectory reward 1.50" in shown


def test_wrong_extra_and_missing_arguments_stand_out():
    pred = {"name": "f", "arguments": {"right": 1, "wrong": 2, "extra": 3}}
    gold = {"name": "f", "arguments": {"right": 1, "wrong": 9, "missing": 4}}
    orange = coloured(draw([[pred]], [gold]), ORANGE)
    assert [word.strip() for word in orange[:-1]] == ["wrong: 2", "extra: 3", "missing: 4"]
    assert coloured(draw([[gold]], [gold]), ORANGE) == orange[-1:]  # the legend


def test_malformed_and_unpaid_calls_are_named():
    root = draw([[{"name": "f", "arguments": "{a:"}, None, 3, BEN]], [ADA, {"name": "g", "arguments": {}}])
    assert "f  malformed" in texts(root)
    dashed = [box for box in root.iter(f"{SVG}rect") if box.get("stroke-dasharray")]
    assert len(dashed) == 4  # three malformed calls, one gold call


def test_transport_draws_shares():
    stored = Stored("t", "q", [[ADA, BEN], []], ["", ""], prompt="Q", golds=[ADA, BEN], outcome=1.0)
    (found,) = credit([stored], settings=TurnCredit(assignment="ot"))
    root = ET.fromstring(drawing_of(found).svg())
    share = found.match.plan_PG[0, 0] * 2
    assert 0.9 < share < 1.0
    assert texts(root).count(f"{share:.0%}") == 2
    assert any("optimal transport · outcome 1.00" in text for text in texts(root))


def test_empty_trajectories_have_pictures():
    for turns, golds in (([], []), ([[]], []), ([], [ADA]), ([[ADA]], [])):
        assert draw(turns, golds).tag == f"{SVG}svg"


def test_numbers_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="1 turns, but 2 rewards"):
        credit_drawing([[ADA]], [ADA], match([ADA], [ADA]), [1.0, 0.0])
    with pytest.raises(ValueError, match=r"the match is of \(1, 1\) calls"):
        credit_drawing([[ADA, BEN]], [ADA], match([ADA], [ADA]), [1.0])


names = st.text(max_size=40)
odd = st.fixed_dictionaries({"name": names, "arguments": st.dictionaries(names, st.text(max_size=80) | st.floats())})


@given(st.lists(st.lists(odd | st.none() | names, max_size=3), max_size=3), st.lists(odd, max_size=3), names)
@settings(deadline=None, max_examples=60)
def test_whatever_a_model_wrote_makes_well_formed_xml(turns, golds, title):
    root = draw(turns, golds, title=title, texts=[title] * len(turns), advantages=np.zeros(len(turns)))
    width, height = float(root.get("width")), float(root.get("height"))
    for box in root.iter(f"{SVG}rect"):
        assert float(box.get("x", 0)) + float(box.get("width")) <= width
        assert float(box.get("y", 0)) + float(box.get("height")) <= height


def test_whatever_a_model_wrote_is_drawn_as_png_too(tmp_path):
    image = pytest.importorskip("matplotlib.image")
    odd = [{"name": "$x^{", "arguments": {"a\nb": "\x00\ud800 $\\frac", "": "日本 🙂"}}, "\n$", None]
    found = match(odd, odd[:1])
    drawing = credit_drawing([odd, []], odd[:1], found, [0.0, -1.0], [-1e300, 1e-300], texts=["", "$"], title="a\n$$b")
    drawing.save(tmp_path / "odd.PNG")
    assert image.imread(tmp_path / "odd.PNG").shape[:2] == (2 * int(drawing.height), 2 * drawing.width)


def test_a_picture_too_high_for_png_says_so(tmp_path):
    pytest.importorskip("matplotlib")
    turns = [[ADA]] * 700
    drawing = credit_drawing(turns, [ADA], match([ADA] * 700, [ADA]), [0.0] * 700)
    with pytest.raises(InputError, match=r"pixels are too high for a PNG, expected \.svg"):
        drawing.save(tmp_path / "high.png")
    drawing.save(tmp_path / "high.svg")
    assert ET.parse(tmp_path / "high.svg").getroot().tag == f"{SVG}svg"
