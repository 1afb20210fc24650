"""Claims about a clip in the report: anchors are those of which every token was sent."""

import numpy as np

from experiments.report.clip import clip, url

ROW = {
    "image": np.array([b"\x89PNGa", b"b", b"c", b"d", b"e"], object),
    "positions": [2, 3, 5],
    "errors": [0.5, 0.01, 0.25, 1.0, 0.0],
    "n_tokens": 10,
    "question": "where?",
}


def test_anchor_frames_are_those_of_which_every_token_came():
    found = clip(ROW)
    assert [f["anchor"] for f in found["frames"]] == [False, True, False, False, False]
    assert [f["kept"] for f in found["frames"]] == [False, True, True, False, False]
    assert [f["error"] for f in found["frames"]] == ["50 %", "1 %", "25 %", "100 %", "0 %"]
    assert found["says"] == (
        "where?; anchor frames 2 of 5; reconstruction errors of the frames 50 %, 1 %, 25 %, 100 %, 0 %"
    )


def test_frames_stand_in_rows_inside_the_drawing():
    found = clip({**ROW, "errors": np.zeros(0)})
    assert found["says"] == "where?; anchor frames 2 of 5"
    assert len({(f["x"], f["y"]) for f in found["frames"]}) == 5
    for frame in found["frames"]:
        assert frame["x"] + found["side"] < found["width"]
        assert frame["y"] + found["side"] < found["height"]


def test_the_kind_of_a_picture_is_told_by_its_first_bytes():
    assert url(b"\xff\xd8\xff1").startswith("data:image/jpeg;base64,")
    assert url(b"?").startswith("data:image/png;base64,")
