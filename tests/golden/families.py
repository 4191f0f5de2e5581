#!/usr/bin/env python3
"""Writes families_golden.hpp: logits of small models whose numbers a formula gives, by transformers. Run by hand, with torch and
transformers at hand; the test itself needs neither.

    python3 tests/golden/families.py > tests/golden/families_golden.hpp
"""
import json

import torch
import transformers

llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 24,
          "rope_theta": 10000.0}
sizes = dict(vocab_size=23, hidden_size=20, intermediate_size=28, num_hidden_layers=2, num_attention_heads=5, num_key_value_heads=5,
             max_position_embeddings=64)
cases = [
    ("gpt2", "GPT2Config", "LMHeadModel", dict(vocab_size=23, n_positions=64, n_embd=21, n_layer=2, n_head=3)),
    ("llama, odd heads, tied", "LlamaConfig", "ForCausalLM", dict(sizes, tie_word_embeddings=True)),
    ("llama, head_dim, groups", "LlamaConfig", "ForCausalLM", dict(sizes, hidden_size=24, num_attention_heads=6, num_key_value_heads=3, head_dim=10)),
    ("llama, all biases", "LlamaConfig", "ForCausalLM", dict(sizes, attention_bias=True, mlp_bias=True)),
    ("llama3 scaling", "LlamaConfig", "ForCausalLM", dict(sizes, head_dim=8, rope_parameters=llama3)),
    ("linear scaling", "LlamaConfig", "ForCausalLM", dict(sizes, rope_parameters={"rope_type": "linear", "factor": 2.5, "rope_theta": 5000.0})),
    ("mistral, window as long as the context", "MistralConfig", "ForCausalLM",
     dict(sizes, hidden_size=24, num_attention_heads=6, num_key_value_heads=2, sliding_window=64)),
    ("mistral, tied, no window", "MistralConfig", "ForCausalLM", dict(sizes, tie_word_embeddings=True, sliding_window=None)),
    ("qwen2, odd heads", "Qwen2Config", "ForCausalLM", dict(sizes)),
    ("qwen2, tied, groups", "Qwen2Config", "ForCausalLM",
     dict(sizes, hidden_size=24, num_attention_heads=6, num_key_value_heads=3, tie_word_embeddings=True)),
    ("qwen2, llama3 scaling", "Qwen2Config", "ForCausalLM", dict(sizes, rope_parameters=llama3)),
    ("gpt2, reward", "GPT2Config", "ForSequenceClassification", dict(vocab_size=23, n_positions=64, n_embd=21, n_layer=2, n_head=3)),
    ("llama, reward", "LlamaConfig", "ForSequenceClassification", dict(sizes)),
    ("mistral, reward", "MistralConfig", "ForSequenceClassification", dict(sizes)),
    ("qwen2, reward", "Qwen2Config", "ForSequenceClassification", dict(sizes)),
]


def value(tensor, element):
    """A number in [-0.5, 0.5) for each element of each tensor."""
    return (((element + 1) * 2654435761 + (tensor + 1) * 40503 * 65537) % 2**32) / 2**32 - 0.5


def fill(model):
    state = model.state_dict()
    names = sorted(name for name in state if not (model.config.tie_word_embeddings and name == "lm_head.weight"))
    for t, name in enumerate(names):
        tensor = state[name]
        u = torch.tensor([value(t, i) for i in range(tensor.numel())], dtype=torch.float64).reshape(tensor.shape)
        norm = any(part in name for part in ("norm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight"))
        tensor.copy_(1 + u if norm else 2 * u)


def main():
    torch.set_grad_enabled(False)
    print("#pragma once\n#include <vector>\n\n// Written by families.py with transformers", transformers.__version__)
    print("namespace collimate::test {\n\nstruct FamilyGolden {\n  const char *name, *config;\n  std::vector<double> numbers;  ///< log-probabilities after"
          " tokens 0, 17 and 39, or the values there\n};\n\ninline const std::vector<FamilyGolden> family_golden{")
    for name, config_class, head, options in cases:
        config = getattr(transformers, config_class)(**options, attn_implementation="eager", num_labels=1 if "Sequence" in head else 2)
        family = config_class.removesuffix("Config")
        model = getattr(transformers, family + head)(config).double().eval()
        fill(model)
        ids = torch.tensor([[(7 * i + i * i // 5 + 3) % 23 for i in range(40)]])
        rows = []
        for length in (1, 18, 40):
            out = model(ids[:, :length]).logits[0]
            rows += (out[-1].log_softmax(-1) if "Sequence" not in head else out).tolist()
        text = json.loads(config.to_json_string(use_diff=True))
        for key in ("transformers_version", "architectures", "dtype"):
            text.pop(key, None)
        print(f'    {{"{name}",\n     R"({json.dumps(text)})",\n     {{' + ", ".join(f"{x:.7g}" for x in rows) + "}},")
    print("};\n\n}  // namespace collimate::test")


main()
