"""Makes a tiny Qwen2.5-VL checkpoint: the real architecture and real file formats, with random weights.

Its text is gibberish that ends at max_tokens. Everything else is what a full checkpoint gives: the chat template,
images as patches and tokens, prefix caching, log-probabilities, streaming. Run by the Python of the vLLM environment,
which has torch:

    PYTHON tests/vllm/checkpoint.py FOLDER
"""

import hashlib
import importlib
import json
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "var" / "vllm-checkpoint"
SEED = 20250101
MERGED_TOKENS = 1024
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] in ('image', 'image_url') %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Merges are learnt from these lines, so that the gibberish is made of English syllables.
TEXT = (
    "You write captions for photos that people post online, and describe only what the photo and the note support.",
    "Say what this photo shows: the subject, what happens, the setting and the mood. One line, no introduction.",
    "People are talking about these topics right now, and if one of them truly fits the photo, weave it in.",
    "Golden light over the harbour, a quiet morning walk, coffee in hand and nowhere else to be this weekend.",
    "Street food, summer rain, an old stone bridge: small moments that make a long journey worth remembering.",
    "The crowd went silent, then somebody laughed, and the whole square began to sing until the sun came up.",
    "Fresh bread, ripe tomatoes and basil from the garden. Dinner with friends under the stars tonight!",
)


def made_by(python: Path) -> Path:
    """The checkpoint's folder; made now, in about 10 s, unless this file has made it before."""
    stamp = FOLDER / "complete"
    version = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    if not stamp.is_file() or stamp.read_text("utf-8") != version:
        # A fixed command on paths of this checkout: nothing from outside reaches it.
        subprocess.run([python, __file__, FOLDER], check=True)  # noqa: S603
        stamp.write_text(version, "utf-8")
    return FOLDER


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(folder)
    write_processors(folder)
    write_model(folder, vocabulary)


def write_tokenizer(folder: Path) -> dict[str, int]:
    """A byte-level BPE like Qwen's, trained here. Returns the id of each token."""
    # Imported by name: these packages exist in the vLLM environment only, where no type checker runs.
    tokenizers = importlib.import_module("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=MERGED_TOKENS,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "Qwen2TokenizerFast",
        "model_max_length": 32768,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1), "utf-8")
    return dict(tokenizer.get_vocab())


def write_processors(folder: Path) -> None:
    config = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "patch_size": 14,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "min_pixels": 4 * 28 * 28,
        "max_pixels": 1280 * 28 * 28,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(config, indent=1), "utf-8")
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}), "utf-8")


def write_model(folder: Path, vocabulary: dict[str, int]) -> None:
    torch = importlib.import_module("torch")
    transformers = importlib.import_module("transformers")
    text = {
        "vocab_size": len(vocabulary),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rope_theta": 1_000_000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": vocabulary["<|im_end|>"],
        "pad_token_id": vocabulary["<|endoftext|>"],
    }
    vision = {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 4,
        "out_hidden_size": 128,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [1],
    }
    config = transformers.Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=vocabulary["<|image_pad|>"],
        video_token_id=vocabulary["<|video_pad|>"],
        vision_start_token_id=vocabulary["<|vision_start|>"],
        vision_end_token_id=vocabulary["<|vision_end|>"],
        tie_word_embeddings=False,
    )
    torch.manual_seed(SEED)
    model = transformers.Qwen2_5_VLForConditionalGeneration(config).to(torch.bfloat16)
    with torch.no_grad():
        # Sharper than the initialisation's near-uniform choice. With min_p below, the tokens of weight zero are never
        # chosen: no lone byte of a longer character, and no end of the text before max_tokens.
        model.lm_head.weight.mul_(8)
        for token, number in vocabulary.items():
            if not token.replace("Ġ", "").isascii() or token in SPECIAL:
                model.lm_head.weight[number].zero_()
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=vocabulary["<|im_end|>"], pad_token_id=vocabulary["<|endoftext|>"], do_sample=True, min_p=0.05
    )
    model.save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
