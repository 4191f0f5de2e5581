"""Models of every family at random sizes, made by transformers: imported, compared token by token, exported and loaded again.

    families.py PROGRAM FOLDER [SEED]

For each model: the log-probabilities of the tokens that the program generates are within 1e-4 of transformers'; the exported folder is
loaded by transformers and has the same tensors. Reward models and PEFT's adapters go in and out likewise.
"""
import random
import shutil
import sys

from oracle import Program, largest_difference, lively, random_config
import peft
import torch
import transformers

program, folder, seed = Program(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1
collimate = program.made
draw = random.Random(seed)
torch.manual_seed(seed)
torch.set_grad_enabled(False)
rows = []


def same_tensors(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def report(what, ok, note=""):
    rows.append(ok)
    print(f"{'ok  ' if ok else 'FAIL'} {what:60s} {note}", flush=True)


def one(name, number):
    here = f"{folder}/{name}{number}"
    shutil.rmtree(here, ignore_errors=True)
    dtype = draw.choice([torch.float32, torch.bfloat16, torch.float16])
    config = random_config(draw, name)
    model = lively(transformers.AutoModelForCausalLM.from_config(config)).to(dtype)
    model.save_pretrained(f"{here}/hf", max_shard_size=draw.choice(["20KB", "5GB"]))
    stored = model.state_dict()
    model = transformers.AutoModelForCausalLM.from_pretrained(f"{here}/hf", dtype=torch.float32)  # to(dtype) has rounded the rotary tables too
    collimate("import", "--model", f"{here}/hf", "--output", f"{here}/c")
    what = f"{name} {number} {str(dtype)[6:]}, tied {config.tie_word_embeddings}"
    difference = largest_difference(program, draw, model, f"{here}/c")
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
    model = transformers.AutoModelForSequenceClassification.from_pretrained(f"{here}/reward")  # in memory other products may be chosen
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
