import torch

from cdc_flower.models import adapters
from cdc_flower.models.families import FAMILIES
from cdc_flower.plan.checkpoints import open_checkpoint
from cdc_flower.plan.live import LAYERS, Live, Work, peak


def test_what_is_alive_is_counted_and_what_is_freed_is_not():
    with Live() as live, torch.device("meta"):
        kept = torch.empty(1000)
        view = kept[:10]
        gone = torch.empty(500)
        del gone
        torch.empty(200)
    assert view.shape == (10,)
    assert live.now == 4000
    assert live.peak == 6000


def test_weights_are_not_counted_however_they_are_turned(pair_folder):
    model = open_checkpoint(str(pair_folder / "student"), "student", "lora", 4, "eager").short
    one, two = (peak(model, LAYERS, Work(rows, 8)) for rows in (1, 2))
    assert two > 1.9 * one


def test_a_pass_on_meta_has_as_much_alive_as_the_pass_itself(deep_student):
    path = deep_student
    of = open_checkpoint(str(path), "student", "lora", 4, "eager")
    real = FAMILIES["llava"].model_class.from_pretrained(path, attn_implementation="eager")
    real.config.text_config.num_hidden_layers = LAYERS
    real.model.language_model.layers = real.model.language_model.layers[:LAYERS]
    real.requires_grad_(False)
    FAMILIES["llava"].take_tower(real)
    real = adapters.train_merged(adapters.attach(real.float(), 4))
    language = real.get_base_model().model.language_model
    for train in (False, True):
        real.train(train)
        with Live([*real.parameters(), *real.buffers()]) as live, torch.set_grad_enabled(train):
            out = language(
                inputs_embeds=torch.zeros(3, 20, of.config.text_config.hidden_size, requires_grad=train),
                attention_mask=torch.zeros(3, 1, 20, 20),
                position_ids=torch.arange(20)[None].expand(3, 20),
                use_cache=False,
            )
            found = real.get_base_model().lm_head(out.last_hidden_state[:, :2]).log_softmax(-1)
            if train:
                found.mean().backward()
        assert abs(peak(of.short, LAYERS, Work(3, 20, 2, train, cache=False)) / live.peak - 1) < 0.05


def test_wider_work_has_more_alive(pair_folder):
    model = open_checkpoint(str(pair_folder / "student"), "student", "lora", 4, "eager").short
    plain = peak(model, 3, Work(4, 30))
    assert peak(model, 3, Work(8, 30)) > 1.5 * plain
    assert peak(model, 3, Work(4, 60)) > 1.5 * plain
    assert peak(model, 3, Work(4, 30, train=True)) > 2 * plain
    assert peak(model, 24, Work(4, 30, train=True)) > 5 * peak(model, 3, Work(4, 30, train=True))


def test_maps_of_attention_are_alive_one_at_a_time(pair_folder):
    model = open_checkpoint(str(pair_folder / "student"), "student", "lora", 4, "eager").short
    one_map = 4 * 4 * model.get_base_model().config.text_config.num_attention_heads * 60 * 60
    without, read = (peak(model, 24, Work(4, 60, attention=maps)) for maps in (False, True))
    assert read < without + 2 * one_map
