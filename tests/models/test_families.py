"""The laws that every family keeps: what goes through our seam is what the class does from pixels."""

from __future__ import annotations

import bitsandbytes as bnb
import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image

from cdc_flower.models import adapters, export, vlm
from cdc_flower.models.families import FAMILIES, family_of, parts
from cdc_flower.models.int4 import Int4Linear
from cdc_flower.models.shared import load_shared
from cdc_flower.models.student import device_model, full_model, twin_model
from cdc_flower.models.teacher import has_tower, load_teacher
from cdc_flower.stages import PairConfig
from tests import tiny
from tests.models.conftest import QUESTIONS, WORDS


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


BOUNDS = {"nf4": 1e-4, "int4": 0.03}
"""What a step of one token may differ by from the twin's, as a share of the largest logit."""
TYPES = {
    "qwen2_5_vl": ("mm_token_type_ids", lambda picture: picture.long()),
    "qwen3_vl": ("mm_token_type_ids", lambda picture: picture.long()),
    "gemma3": ("token_type_ids", lambda picture: picture.long()),
    "paligemma": ("token_type_ids", lambda picture: 0 * picture.long()),
}
"""Family -> what its processor says of every id, from which of them are the picture's."""


def pixels_and_ids(made, i):
    """What the class's own processor would hand over for one picture and question."""
    text, processor = made.shared.text, made.shared.processor
    more = (
        {"crop_to_patches": True} if made.shared.family == "internvl" else {}
    )  # the processor's own default
    found = processor(images=[made.images[i].convert("RGB")], return_tensors="pt", **more)
    ids = torch.tensor([[*text.prefix_ids(made.grids[i]), *made.asked[i]]])
    known = "pixel_values", "pixel_attention_mask", "image_grid_thw", "image_sizes"
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if made.shared.family in TYPES:
        name, of = TYPES[made.shared.family]
        given[name] = of(ids == text.image_id)
    return given | {k: v for k, v in found.items() if k in known}


def test_tokens_have_the_shape_that_the_layout_says(made):
    family = FAMILIES[made.shared.family]
    for image, tokens, grid in zip(made.images, made.tokens, made.grids, strict=True):
        assert tokens.shape == (grid.n, made.shared.width)
        assert tokens.dtype == np.float16
        assert family.layout(made.shared.config, made.shared.processor, image.size[::-1]) == grid
    assert (family.grid(made.shared.config) is None) == family.varies == (len(set(made.grids)) > 1)


def test_a_picture_has_the_same_tokens_alone_and_in_company(made):
    for image, tokens in zip(made.images, made.tokens, strict=True):
        ((alone, _),) = made.shared.encode([image])
        np.testing.assert_allclose(alone, tokens, atol=2e-3)


def test_logits_are_those_of_the_class_from_pixels(made):
    inputs = vlm.collate(made.shared.text, made.tokens, made.asked, grids=made.grids)
    ours = vlm.forward(made.model, inputs).logits[:, -1]
    for i in range(len(made.images)):
        theirs = made.model(**pixels_and_ids(made, i)).logits[0, -1]
        bound = max(5e-3, 2e-3 * float(theirs.abs().max()))  # tokens are float16 here
        torch.testing.assert_close(ours[i], theirs, atol=bound, rtol=1e-3)


def test_answers_are_those_of_generate(made):
    inputs = vlm.collate(made.shared.text, made.tokens, made.asked, grids=made.grids)
    ours = vlm.answer(made.model, made.shared.text, inputs, 6).ids
    assert len(set(map(tuple, ours))) == len(ours), "answers depend on what is asked"
    for i, ids in enumerate(ours):
        given = pixels_and_ids(made, i)
        out = made.model.generate(**given, max_new_tokens=6, do_sample=False)
        theirs = out[0, given["input_ids"].shape[1] :].tolist()
        ends = [j for j, t in enumerate(theirs) if t in made.shared.text.ends]
        assert ids == theirs[: ends[0]] if ends else ids == theirs


def test_a_pass_over_an_answer_predicts_what_was_answered(made):
    text, own = made.shared.text, (made.tokens, made.asked)
    found = vlm.answer(made.model, text, vlm.collate(text, *own, grids=made.grids), 6).ids
    again = vlm.forward(made.model, vlm.collate(text, *own, found, grids=made.grids)).logits.argmax(-1)
    assert [row[: len(ids)].tolist() for row, ids in zip(again, found, strict=True)] == found
    assert max(map(len, found)) > 1


def test_a_kept_subset_is_the_full_sequence_with_the_others_masked(made):
    rng = np.random.default_rng(0)
    kept = [np.sort(rng.permutation(g.n)[: g.n // 3 + i]) for i, g in enumerate(made.grids)]
    some = [t[k] for t, k in zip(made.tokens, kept, strict=True)]
    sparse = vlm.collate(made.shared.text, some, made.asked, None, kept, grids=made.grids)
    whole = vlm.collate(made.shared.text, made.tokens, made.asked, grids=made.grids)
    for row, k in zip(whole.positions, kept, strict=True):
        row[~torch.isin(row, torch.from_numpy(k))] = -1
    absent, masked = vlm.forward(made.model, sparse), vlm.forward(made.model, whole)
    assert absent.hidden.shape[1] < masked.hidden.shape[1]
    torch.testing.assert_close(absent.logits, masked.logits, atol=1e-5, rtol=1e-5)
    every = vlm.forward(made.model, vlm.collate(made.shared.text, made.tokens, made.asked, grids=made.grids))
    assert not torch.allclose(absent.logits, every.logits, atol=1e-4)


def test_padding_changes_nothing(made):
    answers = [[5, 6], [7], [5, 6, 7]]
    together = vlm.collate(made.shared.text, made.tokens, made.asked, answers, length=130, grids=made.grids)
    found = vlm.forward(made.model, together).logits
    assert together.ids.shape[1] == 130
    for i, a in enumerate(answers):
        one = [x[i : i + 1] for x in (made.tokens, made.asked, answers)]
        alone = vlm.forward(made.model, vlm.collate(made.shared.text, *one, grids=made.grids[i : i + 1]))
        torch.testing.assert_close(found[i, : len(a) + 1], alone.logits[0], atol=1e-5, rtol=1e-4)


def test_the_bits_of_an_answer_do_not_depend_on_its_neighbours(made):
    before = torch.get_num_threads()
    torch.set_num_threads(1)

    def steps(rows):
        tokens, asked, grids = ([x[i] for i in rows] for x in (made.tokens, made.asked, made.grids))
        inputs = vlm.collate(made.shared.text, tokens, asked, length=130, grids=grids)
        return vlm.answer(made.model, made.shared.text, inputs, 4, top_k=5, least=4).top_logits

    many, few = steps([0, 1, 2, 0, 1, 2, 0, 1]), steps([2, 1, 0, 2])
    torch.set_num_threads(before)
    for i, j in ((0, 2), (1, 1), (2, 0)):
        assert np.array_equal(many[i], few[j])


def test_the_pictures_id_elsewhere_is_a_word_like_others(made):
    picture, word = made.shared.text.image_id, made.shared.text.tokenizer.convert_tokens_to_ids("answer")
    rows = made.model.get_input_embeddings().weight
    found = {}
    for i in (picture, word):
        asked, answers = [[*made.asked[0], i, 5], *made.asked[1:]], [[i, 6], [7], [i]]
        inputs = vlm.collate(made.shared.text, made.tokens, asked, answers, grids=made.grids)
        before = rows[word].clone()
        if i == word:
            rows[word] = rows[picture]
        found[i] = vlm.forward(made.model, inputs).hidden[inputs.mask]
        rows[word] = before
    torch.testing.assert_close(found[picture], found[word])


def test_the_adapter_is_nowhere_in_the_tower_and_changes_nothing_at_first(made):
    twin = twin_model(made.shared, PairConfig(lora_rank=2, compression="none"))
    family, names = family_of(twin), adapters.layout(twin).names
    assert not any(f".{family.tower}." in n.replace(family.projector, "") for n in names)
    assert any(family.projector in n for n in names)
    for part in ("q_proj.lora_A", "down_proj.lora_A", "embed_tokens.lora", "lm_head.lora", "input_layernorm"):
        assert any(part in n for n in names), part
    assert any(f"{family.language}.norm" in n for n in names)
    inputs = vlm.collate(made.shared.text, made.tokens, made.asked, grids=made.grids)
    want, got = vlm.forward(made.model, inputs).logits, vlm.forward(twin, inputs).logits
    torch.testing.assert_close(got, want, atol=2e-4, rtol=1e-3)
    with twin.disable_adapter():
        torch.testing.assert_close(vlm.forward(twin, inputs).logits, want, atol=3e-5, rtol=1e-5)


@pytest.mark.parametrize(("compression", "kind"), [("nf4", bnb.nn.Linear4bit), ("int4", Int4Linear)])
def test_four_bits_are_in_the_language_model_alone_and_the_twin_answers_alike(made, compression, kind):
    config = PairConfig(lora_rank=2, compression=compression)
    device, twin = device_model(made.shared, config), twin_model(made.shared, config)
    family = family_of(device)
    packed = [n for n, m in device.named_modules() if isinstance(m, kind)]
    assert len(packed) == 7 * made.shared.config.text_config.num_hidden_layers
    assert all(f".{family.language}.layers." in n for n in packed)
    inputs = vlm.collate(made.shared.text, made.tokens, made.asked, grids=made.grids)
    a, b = (vlm.forward(m, inputs).logits for m in (device, twin))
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    mine, its = (vlm.answer(m, made.shared.text, inputs, 1, top_k=made.shared.vocab) for m in (device, twin))
    assert mine.ids == its.ids
    for one, other in zip(mine.top_logits, its.top_logits, strict=True):  # after a step of one token
        np.testing.assert_allclose(one, other, atol=BOUNDS[compression] * np.abs(other).max())


def logits_from_pixels(model, made):
    """Of the next token, by the class's own pass."""
    return torch.stack([model(**pixels_and_ids(made, i)).logits[0, -1] for i in range(len(made.images))])


def changed(made):
    """The student with an adapter that does something, and its logits."""
    twin = twin_model(made.shared, PairConfig(lora_rank=2, compression="none"))
    rng, flat = np.random.default_rng(0), adapters.read(twin)
    adapters.write(twin, (flat + rng.normal(0, 0.02, len(flat))).astype(np.float32))
    inputs = vlm.collate(made.shared.text, made.tokens, made.asked, grids=made.grids)
    return twin, vlm.forward(twin, inputs).logits[:, -1]


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_an_adapter_goes_through_peft_and_answers_from_pixels(made, tmp_path):
    twin, want = changed(made)
    export.as_adapter(twin, made.shared, PairConfig(compression="none"), tmp_path / "adapter", "?")
    told = "peft cannot merge" in (tmp_path / "adapter" / "README.md").read_text()
    assert told == made.model.config.tie_word_embeddings
    base = type(made.model).from_pretrained(made.shared.path, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert np.array_equal(adapters.read(twin), np.concatenate([*_saved(model, twin)]))
    torch.testing.assert_close(logits_from_pixels(model, made), want, atol=5e-3, rtol=1e-3)


def _saved(model, twin):
    tensors = dict(model.named_parameters())
    return (tensors[name].flatten().numpy() for name in adapters.layout(twin).names)


def test_a_merged_checkpoint_is_whole_and_answers_from_pixels(made, tmp_path):
    twin, want = changed(made)
    export.as_checkpoint(twin, made.shared, tmp_path / "merged")
    model, report = type(made.model).from_pretrained(
        tmp_path / "merged", dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    torch.testing.assert_close(logits_from_pixels(model.eval(), made), want, atol=5e-3, rtol=1e-3)
    again = load_shared(PairConfig(teacher="nowhere", student=str(tmp_path / "merged")), "x")
    assert again.tower_digest == made.shared.tower_digest


def test_a_teacher_of_another_width_shares_the_tokens(name, made, tmp_path):
    def wide(folder, tower):
        tiny.write(name, tmp_path / folder, WORDS, tiny.Size(64, 3), seed=1, tower=tower)
        return PairConfig(teacher=str(tmp_path / folder), student=made.shared.path)

    other = wide("other", None)
    assert not has_tower(other, made.shared, "x")
    assert not load_teacher(other, made.shared, "x").tokens
    found = load_teacher(wide("same", made.shared.tower), made.shared, "x")
    assert (found.tokens, found.words, found.own) == (True, True, None)
    teacher = found.model
    inputs = vlm.collate(made.shared.text, made.tokens, made.asked, grids=made.grids)
    got = vlm.forward(teacher, inputs).logits[:, -1]
    model = type(made.model).from_pretrained(tmp_path / "same", dtype=torch.float32).eval()
    torch.testing.assert_close(logits_from_pixels(model, made), got, atol=5e-3, rtol=1e-3)


def test_the_question_is_read_out_of_its_ids(made):
    """As words that have the same ids again: these tokenizers put spaces before marks."""
    text = made.shared.text
    for question, ids in zip(QUESTIONS, made.asked, strict=True):
        assert text.question_of(ids).replace(" ?", "?") == question
        assert text.question_ids(text.question_of(ids)) == ids
    assert text.question_of(text.question_ids("")) == ""
    stranger = text.answer_ids("red heart")
    assert text.question_of(stranger) == "red heart"


def test_a_picture_that_is_sent_has_the_pixels_of_its_grid(made):
    """The tower reads it, and where that is one square, as it reads the picture itself."""
    for image, grid, tokens in zip(made.images, made.grids, made.tokens, strict=True):
        pixels = made.shared.to_send(image, grid)
        assert pixels.shape == (grid.rows * made.shared.patch, grid.cols * made.shared.patch, 3)
        ((again, lies),) = made.shared.encode([Image.fromarray(pixels)])
        assert lies == grid
        if made.shared.raster:
            assert np.linalg.norm(again - tokens) < 0.1 * np.linalg.norm(tokens)


def test_a_student_holds_no_tower_and_all_of_it_can_be_trained(made):
    model = full_model(made.shared, PairConfig())
    mine = dict(model.named_parameters())
    assert all(p.requires_grad for p in mine.values())
    of_tower = {n for n, _ in made.shared.tower.named_parameters()}
    assert not {n.removeprefix(f"model.{family_of(model).tower}.") for n in mine} & of_tower
    assert {id(p) for part in parts(model) for p in part.parameters()} <= {id(p) for p in mine.values()}


def test_the_registry_says_what_a_family_is():
    for name, family in FAMILIES.items():
        assert family.model_type == name
        assert family.tap
        assert family.checkpoints
        assert name in tiny.BUILDERS
        assert family.model_class.config_class.model_type == name
    assert len(QUESTIONS) == 3
