"""What a device of `mmpg_cdc` sends: all questions, anchor frames, and tokens of what it doubted most."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdc_flower.cloud import adr
from cdc_flower.config import parse
from cdc_flower.uplink import token_batch
from clients import cdc, mmpg, mmpg_cdc
from clients.exchange import overhead
from strategies.run import run_local

KEPT = 5


@pytest.fixture
def now(clip_settings, monkeypatch):
    """The round of a device that may send as much as it likes."""
    rounds: list[cdc.Round] = []

    def watched(now):
        rounds.append(now)
        return mmpg.anchored(now)

    monkeypatch.setattr(mmpg_cdc, "both", watched)
    more = {"uplink.sample-score": "entropy", "mmpg.clips": 2, "uplink.tokens-kept": KEPT, "uplink.budget": 0}
    run_local(parse(clip_settings(method="mmpg_cdc", rounds=1, devices=1, **more)))
    monkeypatch.undo()
    return rounds[0]


def within(now: cdc.Round, room: int) -> cdc.Round:
    config = now.task.config
    budget = room and room + overhead()
    return replace(
        now, task=replace(now.task, config=replace(config, uplink=replace(config.uplink, budget=budget)))
    )


def decoded(now: cdc.Round, frame: bytes):
    shared, up = now.task.shared, now.task.config.uplink
    rest = shared.fits, shared.width, shared.vocab, 10**6
    return token_batch.decode(frame, *rest, transform=shared.transform_for(up), bits=up.token_bits).samples


def test_all_questions_go_up_with_anchors_of_some_and_tokens_of_the_most_uncertain(now):
    every, count, tokens = mmpg_cdc.both(now)
    n = now.task.shared.n_tokens // now.task.shared.frames
    sizes = [len(s.positions) for s in decoded(now, every)]
    assert sorted(sizes) == [n] * 2 + [KEPT] * (len(sizes) - 2)
    assert (count, tokens) == (len(now.asked), sum(sizes))
    frame, count, tokens = mmpg_cdc.both(within(now, len(every) - 1))
    some = decoded(now, frame)
    assert len(frame) < len(every)
    assert [list(s.question_ids) for s in some] == now.asked
    assert all(len(s.answer_ids) == 0 for s in some)
    anchored = [s for s in some if len(s.positions) == n]
    assert len(anchored) == 2
    assert all(len(adr.anchor_frames(s.positions, n)) == 1 for s in anchored)
    sent = [s.uncertainty for s in some if len(s.positions) == KEPT]
    left = [s.uncertainty for s in some if not len(s.positions)]
    assert sent
    assert left
    assert min(sent) >= max(left)


def test_without_room_for_tokens_it_is_what_mmpg_sends(now):
    least = len(mmpg.anchored(now)[0])
    assert mmpg_cdc.both(within(now, least)) == mmpg.anchored(within(now, least))
    assert mmpg_cdc.both(within(now, 1)) == (b"", 0, 0)
