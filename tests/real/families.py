"""Models of every family at random sizes, made by transformers: imported, compared token by token, exported and loaded again.

    families.py PROGRAM FOLDER [SEED]

For each model: the log-probabilities of the tokens that the program generates are within 1e-4 of transformers'; the exported folder is
loaded by transformers and has the same tensors. Reward models and PEFT's adapters go in and out likewise.
"""
import os
import random
import re
import shutil
import subprocess
import sys

import peft
import torch
import transformers

program, folder, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1
draw = random.Random(seed)
torch.manual_seed(seed)
torch.set_grad_enabled(False)
rows = []


def collimate(*arguments):
    done = subprocess.run([program, *arguments], capture_output=True, text=True, env=dict(os.environ, OMP_NUM_THREADS="1"))
    if done.returncode:
        sys.exit(f"collimate {' '.join(arguments)}: {done.stderr}")
    return done.stdout


def rope(kind, theta):
    if kind == "linear":
        return {"rope_type": "linear", "factor": draw.choice([2.0, 3.5]), "rope_theta": theta}
    if kind == "llama3":
        return {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 24, "rope_theta": theta}
    return {"rope_type": "default", "rope_theta": theta}


def llama_like(name, **more):
    kv_heads = draw.choice([1, 2, 3])
    heads = kv_heads * draw.choice([1, 2, 3])
    sizes = dict(vocab_size=draw.randint(40, 90), hidden_size=heads * draw.choice([6, 8, 10]), intermediate_size=draw.randint(20, 70),
                 num_hidden_layers=draw.randint(1, 3), num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=96,
                 tie_word_embeddings=draw.random() < 0.5, rms_norm_eps=draw.choice([1e-5, 1e-6]),
                 rope_parameters=rope(draw.choice(["default", "linear", "llama3"]), draw.choice([1e4, 5e5])))
    if draw.random() < 0.5 and name != "Qwen2":
        sizes["head_dim"] = draw.choice([4, 8, 12])
    return getattr(transformers, name + "Config")(**dict(sizes, bos_token_id=0, eos_token_id=1, **more))


def config_of(name):
    if name == "GPT2":
        heads = draw.choice([1, 3, 5])
        return transformers.GPT2Config(vocab_size=draw.randint(40, 90), n_positions=96, n_embd=heads * draw.choice([7, 8]),
                                       n_layer=draw.randint(1, 3), n_head=heads, bos_token_id=0, eos_token_id=1)
    if name == "Mistral":
        return llama_like(name, sliding_window=draw.choice([None, 96, 4096]))
    if name == "Llama":
        return llama_like(name, attention_bias=draw.random() < 0.5, mlp_bias=draw.random() < 0.5)
    return llama_like(name)


def lively(model):
    """Numbers large enough that tokens differ, biases and gains away from 0 and 1."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.mul_(6)
        else:
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def largest_difference(model, checkpoint):
    """Of the log-probabilities of what the program generates greedily behind three prompts."""
    worst = 0.0
    for length in (1, 9, 40):
        prompt = [draw.randrange(2, model.config.vocab_size) for _ in range(length)]
        said = collimate("generate", "--checkpoint", checkpoint, "--prompt-ids", ",".join(map(str, prompt)), "--temperature", "0", "--max-new",
                         "24", "--stop", "none", "--logprobs")
        table = [(int(t), float(p)) for t, p in re.findall(r"^\s*(\d+)\s+(-?\d+\.\d+)", said, re.M)]
        assert len(table) == 24, said
        ids = torch.tensor([prompt + [token for token, _ in table]])
        expected = model(ids).logits[0].log_softmax(-1)
        for i, (token, logprob) in enumerate(table):
            worst = max(worst, abs(expected[length - 1 + i, token].item() - logprob))
    return worst


def same_tensors(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def report(what, ok, note=""):
    rows.append(ok)
    print(f"{'ok  ' if ok else 'FAIL'} {what:60s} {note}", flush=True)


def one(name, number):
    here = f"{folder}/{name}{number}"
    shutil.rmtree(here, ignore_errors=True)
    dtype = draw.choice([torch.float32, torch.bfloat16, torch.float16])
    config = config_of(name)
    model = lively(transformers.AutoModelForCausalLM.from_config(config)).to(dtype)
    model.save_pretrained(f"{here}/hf", max_shard_size=draw.choice(["20KB", "5GB"]))
    stored = model.state_dict()
    model = transformers.AutoModelForCausalLM.from_pretrained(f"{here}/hf", dtype=torch.float32)  # to(dtype) has rounded the rotary tables too
    collimate("import", "--model", f"{here}/hf", "--output", f"{here}/c")
    what = f"{name} {number} {str(dtype)[6:]}, tied {config.tie_word_embeddings}"
    difference = largest_difference(model, f"{here}/c")
    report(what + ", log-probabilities", difference < 1e-4, f"{difference:.1e}")
    collimate("export", "--checkpoint", f"{here}/c", "--output", f"{here}/out", "--shard-size", draw.choice(["30KB", "5GB"]))
    again = transformers.AutoModelForCausalLM.from_pretrained(f"{here}/out", dtype="auto")
    report(what + ", exported", same_tensors(again.state_dict(), stored) and again.dtype == dtype and again.config.model_type == config.model_type)
    ids = torch.tensor([[draw.randrange(config.vocab_size) for _ in range(60)]])
    again = transformers.AutoModelForCausalLM.from_pretrained(f"{here}/out", dtype=torch.float32)
    difference = (again(ids).logits - model(ids).logits).abs().max().item()
    report(what + ", logits of the exported model", difference == 0, f"{difference:.1e}")
    return model, here


def reward(name, config, here):
    config.num_labels = 1
    model = lively(transformers.AutoModelForSequenceClassification.from_config(config))
    model.save_pretrained(f"{here}/reward")
    collimate("import", "--model", f"{here}/reward", "--output", f"{here}/rc")
    collimate("export", "--checkpoint", f"{here}/rc", "--output", f"{here}/reward-out")
    again = transformers.AutoModelForSequenceClassification.from_pretrained(f"{here}/reward-out")
    ids = torch.tensor([[draw.randrange(config.vocab_size) for _ in range(30)]])
    report(f"{name} reward model", again.config.num_labels == 1 and torch.equal(again(ids).logits, model(ids).logits))


def adapters(name, model, here):
    targets = ["c_attn", "mlp.c_proj"] if name == "GPT2" else draw.sample(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], 3)
    with torch.enable_grad():
        wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=5, target_modules=targets, fan_in_fan_out=name == "GPT2"))
    for key, parameter in wrapped.named_parameters():
        if "lora_" in key:
            parameter.copy_(0.3 * torch.randn_like(parameter))
    wrapped.save_pretrained(f"{here}/peft")
    ids = torch.tensor([[draw.randrange(model.config.vocab_size) for _ in range(30)]])
    expected = wrapped(ids).logits
    wrapped.unload()
    # The base is in float32 here, whatever it was saved as: saved once more.
    model.save_pretrained(f"{here}/base32")
    collimate("import", "--model", f"{here}/base32", "--output", f"{here}/c32")
    collimate("import", "--model", f"{here}/peft", "--output", f"{here}/pc", "--base", f"{here}/c32")
    collimate("export", "--checkpoint", f"{here}/pc", "--output", f"{here}/merged")
    merged = transformers.AutoModelForCausalLM.from_pretrained(f"{here}/merged")
    difference = (merged(ids).logits - expected).abs().max().item()
    report(f"{name} adapters of {', '.join(targets)}, in", difference < 1e-4, f"{difference:.1e}")
    collimate("export", "--checkpoint", f"{here}/pc", "--output", f"{here}/peft-out", "--adapters")
    loaded = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(f"{here}/base32"), f"{here}/peft-out")
    difference = (loaded(ids).logits - expected).abs().max().item()
    report(f"{name} adapters of {', '.join(targets)}, out", difference < 1e-4, f"{difference:.1e}")


for name in ("GPT2", "Llama", "Mistral", "Qwen2"):
    for number in (1, 2, 3):
        model, here = one(name, number)
    reward(name, model.config, here)
    adapters(name, model, here)
print(f"{sum(rows)} of {len(rows)} right, seed {seed}, transformers {transformers.__version__}, peft {peft.__version__}")
sys.exit(0 if all(rows) else 1)
