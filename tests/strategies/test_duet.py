"""`duet`: all frames, the head, whatever the section `mmpg` says."""

from __future__ import annotations

from cdc_flower.config import parse
from strategies.duet import Duet
from strategies.run import prepare


def test_all_frames_go_up_and_the_head_comes_down(clip_settings):
    setup = prepare(parse(clip_settings(method="duet", **{"mmpg.generate": "basis", "mmpg.clips": 2})))
    own = Duet.chosen(setup.config, setup.shared)
    assert (own.generate, own.frames, own.reconstruct, own.clips) == ("head", 3, "none", 2)
    made = Duet.build(setup)
    names = [n for n, size in zip(made.layout.names, made.layout.sizes, strict=True) for _ in range(size)]
    assert {n.split(".")[2] for n in (names[i] for i in made.adaptor.at.tolist())} == {"lm_head"}
    assert made.limits.kept == setup.shared.n_tokens
