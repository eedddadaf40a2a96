# mypy: ignore-errors
# Its imports live in another environment.
"""Write a model with a given configuration and random weights, as the hub would hold it: in fp32.

It runs in the environment of the note's service. Token N is the word ``tN``, so that a prompt has
the same tokens for this service and for llama-server, which is given the numbers.

    python make_model.py CONFIG.json FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SEED = 0


def main(config_path: Path, folder: Path) -> None:
    """Write configuration, weights, generation settings and tokenizer."""
    given = json.loads(config_path.read_text(encoding="utf-8"))
    torch.manual_seed(SEED)
    config = LlamaConfig(**given["config"])
    model = LlamaForCausalLM(config).to(torch.float32)
    model.generation_config = GenerationConfig(**given["generation_config"])
    model.save_pretrained(folder, safe_serialization=True)
    words = {f"t{number}": number for number in range(config.vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="t0",
        bos_token="t1",
        eos_token="t2",
        pad_token="t2",
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
