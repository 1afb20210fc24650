"""The student of a run answers a picture as it answers the vision tokens of that picture in the run."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from cdc_flower import checkpoint
from cdc_flower.config import ConfigError
from cdc_flower.data.features import ORIENTATION, open_picture
from cdc_flower.data.world import load_world
from cdc_flower.models import adapters, vlm
from cdc_flower.models.adapted import adapted
from cdc_flower.models.shared import Shared
from cdc_flower.models.student import twin_model


def test_a_student_wears_what_the_run_has_learned_and_answers(run, shared, monkeypatch):
    encode = Shared.encode
    found, shipped = adapted(run), adapted(run, shipped=True)
    _, parts = checkpoint.load_newest(run / "checkpoints")
    learned = next(iter(parts["arrays"].values()))
    np.testing.assert_array_equal(adapters.read(found.model), learned)
    first = adapters.read(twin_model(shared, found.config.pair))
    np.testing.assert_array_equal(adapters.read(shipped.model), first)
    assert not np.array_equal(learned, first)

    world = load_world(found.config, found.shared)
    rows = world.test.iloc[:4]
    asked = [found.shared.text.question_ids(q) for q in rows["question"]]
    tokens = [world.test_tokens[i] for i in rows["image_row"]]
    inputs = vlm.collate(found.shared.text, tokens, asked)
    expected = vlm.answer(found.model, found.shared.text, inputs, found.shared.max_answer_tokens).texts
    said = [
        found.answer(open_picture(world.pack.test_images[row["image_id"]]), row["question"])
        for _, row in rows.iterrows()
    ]
    assert said == expected
    assert len(set(said)) > 1
    sideways, file = Image.Exif(), io.BytesIO()
    sideways[ORIENTATION] = 6  # upright once turned to the right
    upright = open_picture(world.pack.test_images[rows["image_id"].iloc[0]])
    upright.transpose(Image.Transpose.ROTATE_90).save(file, "PNG", exif=sideways)
    read = []
    monkeypatch.setattr(Shared, "encode", lambda self, images: read.extend(images) or encode(self, images))
    assert found.answer(Image.open(file), rows["question"].iloc[0]) == expected[0]
    assert read[0].tobytes() == upright.tobytes()


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.json is missing"):
        adapted(tmp_path)
