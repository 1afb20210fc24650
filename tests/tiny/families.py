"""One function a family: a model of a few thousand weights, and files as the hub has them."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.tiny import templates
from tests.tiny.parts import HALVES, VISION, Size, Tiny, text, tokenizer


def _llava(words: str, size: Size, vision: Any, processor: dict[str, Any], strategy: Any, layer: int) -> Tiny:
    made = tokenizer(f"{words} USER ASSISTANT", ["<s>", "</s>", "<image>"], templates.LLAVA, "</s>", "<s>")
    config = hf.LlavaConfig(
        vision_config=vision,
        text_config=hf.LlamaConfig(**text(made, size)),
        image_token_index=made.vocab["<image>"],
        vision_feature_select_strategy=strategy,
        vision_feature_layer=layer,
        tie_word_embeddings=False,
    )
    return Tiny(hf.LlavaForConditionalGeneration, config, made, processor)


def llava(words: str, size: Size) -> Tiny:
    """llava-hf/llava-1.5-7b-hf: a CLIP tower with a class token."""
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 16},
        "crop_size": {"height": 16, "width": 16},
    }
    return _llava(words, size, hf.CLIPVisionConfig(**VISION), processor, "default", -2)


def llava_siglip(words: str, size: Size) -> Tiny:
    """LLaVA with a SigLIP tower, which has no class token."""
    processor = {
        "image_processor_type": "SiglipImageProcessor",
        "size": {"height": 16, "width": 16},
        **HALVES,
    }
    vision = hf.SiglipVisionConfig(**VISION, vision_use_head=False)
    return _llava(words, size, vision, processor, "full", -1)


def smolvlm(words: str, size: Size, first: bool = False) -> Tiny:
    """HuggingFaceTB/SmolVLM2-256M-Video-Instruct; `first`: SmolVLM-256M-Instruct, of Idefics3's classes."""
    special = ["<|im_start|>", "<end_of_utterance>", "<image>", "<fake_token_around_image>", "<global-img>"]
    special += [f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2)]
    made = tokenizer(f"{words} User Assistant", special, templates.SMOLVLM, special[1], special[0])
    config: Any = (hf.Idefics3Config if first else hf.SmolVLMConfig)(
        vision_config={**VISION, **size.vision},
        text_config=hf.LlamaConfig(**text(made, size)),
        image_token_id=made.vocab["<image>"],
        tie_word_embeddings=False,
        **{"scale_factor": 2, **size.more},
    )
    processor = {
        "image_processor_type": "Idefics3ImageProcessor" if first else "SmolVLMImageProcessor",
        "size": {"longest_edge": 32},
        "max_image_size": {"longest_edge": 16},
        "do_image_splitting": True,
        **HALVES,
        **size.processor,
    }
    model = hf.Idefics3ForConditionalGeneration if first else hf.SmolVLMForConditionalGeneration
    return Tiny(model, config, made, processor)


def idefics3(words: str, size: Size) -> Tiny:
    """See `smolvlm`."""
    return smolvlm(words, size, first=True)


QWEN_WORDS = ["im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad"]


def _ids(made: Any) -> dict[str, Any]:
    names = {
        "image": "image_pad",
        "video": "video_pad",
        "vision_start": "vision_start",
        "vision_end": "vision_end",
    }
    return {f"{name}_token_id": made.vocab[f"<|{word}|>"] for name, word in names.items()}


def qwen2_5_vl(words: str, size: Size) -> Tiny:
    """Qwen/Qwen2.5-VL-3B-Instruct: tied words, and a flat config.json."""
    special = [f"<|{word}|>" for word in QWEN_WORDS]
    made = tokenizer(f"{words} system user assistant You are a helpful", special, templates.QWEN, special[1])
    rope = {"type": "mrope", "mrope_section": [size.hidden // 32, size.hidden // 32, size.hidden // 16]}
    vision = {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "patch_size": 4,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 16,
        "out_hidden_size": size.hidden,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 2,
    }
    language = text(made, size, rope_scaling=rope)
    ids = _ids(made)
    config = hf.Qwen2_5_VLConfig(text_config=language, vision_config=vision, tie_word_embeddings=True, **ids)
    flat = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "vision_config": {**vision, "in_chans": 3, "spatial_patch_size": 4, "hidden_act": "silu"},
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        **text(made, size, rope_scaling=rope),
        **ids,
    }
    processor = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "min_pixels": 4 * 64,
        "max_pixels": 36 * 64,
        "patch_size": 4,
        "temporal_patch_size": 2,
        "merge_size": 2,
    }
    return Tiny(hf.Qwen2_5_VLForConditionalGeneration, config, made, processor, as_on_hub=lambda _: flat)


def gemma3(words: str, size: Size) -> Tiny:
    """google/gemma-3-4b-it: tied words, local layers of a window, and marks around a picture."""
    special = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
    special += ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]
    made = tokenizer(f"{words} user model", special, templates.GEMMA, "<eos>", "<bos>")
    language = text(
        made,
        size,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=64,
        layer_types=["sliding_attention", *["full_attention"] * (size.layers - 1)],
        rope_scaling={"factor": 8.0, "rope_type": "linear"},
    )
    config: Any = hf.Gemma3Config(
        text_config=language,
        vision_config={**VISION, "vision_use_head": False, "model_type": "siglip_vision_model"},
        mm_tokens_per_image=4,
        boi_token_index=made.vocab["<start_of_image>"],
        eoi_token_index=made.vocab["<end_of_image>"],
        image_token_index=made.vocab["<image_soft_token>"],
    )
    processor = {
        "image_processor_type": "Gemma3ImageProcessor",
        "processor_class": "Gemma3Processor",
        "image_seq_length": 4,
        "do_pan_and_scan": None,
        "size": {"height": 16, "width": 16},
        **HALVES,
    }
    return Tiny(hf.Gemma3ForConditionalGeneration, config, made, processor, ends=("<eos>", "<end_of_turn>"))


def internvl(words: str, size: Size) -> Tiny:
    """OpenGVLab/InternVL3-1B-hf: a Qwen2 language model, at most four tiles."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"]
    made = tokenizer(f"{words} user assistant", special, templates.INTERNVL, "<|im_end|>")
    config = hf.InternVLConfig(
        text_config=hf.Qwen2Config(**text(made, size)),
        vision_config={**VISION, "image_size": [16, 16], "patch_size": [4, 4], "attention_bias": True},
        image_token_id=made.vocab["<IMG_CONTEXT>"],
        image_seq_length=4,
        downsample_ratio=0.5,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    processor = {
        "image_processor_type": "GotOcr2ImageProcessor",
        "processor_class": "InternVLProcessor",
        "crop_to_patches": False,
        "min_patches": 1,
        "max_patches": 4,
        "size": {"height": 16, "width": 16},
    }
    return Tiny(hf.InternVLForConditionalGeneration, config, made, processor)


def paligemma(words: str, size: Size) -> Tiny:
    """google/paligemma2-3b-mix-224: Gemma 2 with bounded logits, tied words, no chat template."""
    made = tokenizer(words, ["<pad>", "<eos>", "<bos>", "<image>"], "", "<eos>", "<bos>")
    more = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 64, "model_type": "gemma2"}
    config: Any = hf.PaliGemmaConfig(
        text_config=text(made, size, final_logit_softcapping=0.5, **more),
        vision_config={
            **VISION,
            "vision_use_head": False,
            "model_type": "siglip_vision_model",
            "projection_dim": size.hidden,
        },
        image_token_index=made.vocab["<image>"],
        projection_dim=size.hidden,
        hidden_size=size.hidden,
    )
    processor = {
        "image_processor_type": "SiglipImageProcessor",
        "processor_class": "PaliGemmaProcessor",
        "image_seq_length": 16,
        "size": {"height": 16, "width": 16},
        **HALVES,
    }
    return Tiny(hf.PaliGemmaForConditionalGeneration, config, made, processor)


def qwen3_vl(words: str, size: Size) -> Tiny:
    """Qwen/Qwen3-VL-2B-Instruct: two of three layers of the tower go into layers of the language model."""
    made = tokenizer(
        f"{words} user assistant", [f"<|{word}|>" for word in QWEN_WORDS], templates.QWEN3, "<|im_end|>"
    )
    rope = {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [2, 1, 1]}
    vision = {
        "depth": 3,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "patch_size": 4,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "num_position_embeddings": 16,
        "out_hidden_size": size.hidden,
        "deepstack_visual_indexes": [0, 1],
    }
    config = hf.Qwen3VLConfig(
        text_config=text(made, size, head_dim=8, rope_scaling=rope),
        vision_config=vision,
        tie_word_embeddings=True,
        **_ids(made),
    )
    processor = {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": "Qwen3VLProcessor",
        "size": {"shortest_edge": 4 * 64, "longest_edge": 36 * 64},
        "patch_size": 4,
        "temporal_patch_size": 2,
        "merge_size": 2,
        **HALVES,
    }
    return Tiny(hf.Qwen3VLForConditionalGeneration, config, made, processor, nested=True)


def llava_onevision(words: str, size: Size) -> Tiny:
    """llava-hf/llava-onevision-qwen2-0.5b-ov-hf: words tied in text_config alone, at most four tiles."""
    made = tokenizer(
        f"{words} user assistant",
        ["<|im_start|>", "<|im_end|>", "<image>"],
        templates.ONEVISION,
        "<|im_end|>",
    )
    sizes = [[16 * h, 16 * w] for h in (1, 2) for w in (1, 2)]
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=hf.Qwen2Config(**text(made, size, tie_word_embeddings=True)),
        image_token_index=made.vocab["<image>"],
        video_token_index=len(made),
        vision_aspect_ratio="anyres_max_9",
        image_grid_pinpoints=sizes,
    )
    processor = {
        "image_processor_type": "LlavaOnevisionImageProcessor",
        "processor_class": "LlavaOnevisionProcessor",
        "size": {"height": 16, "width": 16},
        "image_grid_pinpoints": sizes,
        "do_pad": True,
        **HALVES,
    }
    return Tiny(hf.LlavaOnevisionForConditionalGeneration, config, made, processor, as_on_hub=_tied_in_text)


def _tied_in_text(config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "tie_word_embeddings": False}
