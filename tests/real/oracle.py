"""What the comparisons with transformers in this folder share: the program, random models and texts, token ids.

The Python they run in is COLLIMATE_ORACLE.
"""
import json
import os
import pathlib
import random
import subprocess
import unicodedata

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
import torch
import transformers

transformers.utils.logging.disable_progress_bar()


CHAT_TEMPLATES = json.loads((pathlib.Path(__file__).resolve().parent.parent / "data" / "chat_templates.json").read_text())["texts"]
# No words that look like special tokens: those of data stay letters here, and become tokens there.
DIALOGUES = [[["user", "Hi there"]],
             [["system", "Be brief."], ["user", "Why?  Naïve 漢字 🙂"], ["assistant", "Because."], ["user", " And\n\nnow? \n"]],
             [["user", "a"], ["assistant", " b "], ["user", "c"], ["assistant", "d"], ["user", "e"], ["assistant", "f\n"], ["user", "g"]],
             [["system", ""], ["user", "1 + 1 = ?"]]]
CHAT_TOKENS = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>",
               "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
ANSWER = "It is\n fine."


class Program:
    """The program, on one thread."""

    def __init__(self, path):
        self.path = path

    def run(self, *arguments, text=None, launcher=()):
        """(exit code, standard output, standard error)"""
        done = subprocess.run([*launcher, self.path, *arguments], capture_output=True, input=text and text.encode(),
                              stdin=subprocess.DEVNULL if text is None else None, env=dict(os.environ, OMP_NUM_THREADS="1"))
        return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")

    def made(self, *arguments, launcher=()):
        """Its standard output; RuntimeError where it fails."""
        code, out, problem = self.run(*arguments, launcher=launcher)
        if code != 0:
            raise RuntimeError(f"collimate {' '.join(arguments)}: exit code {code}: {problem.strip()}")
        return out


def rope(draw, kind, theta):
    if kind == "linear":
        return {"rope_type": "linear", "factor": draw.choice([2.0, 3.5]), "rope_theta": theta}
    if kind == "llama3":
        return {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 24, "rope_theta": theta}
    return {"rope_type": "default", "rope_theta": theta}


def llama_like(draw, name, rope_kind=None, **more):
    kv_heads = draw.choice([1, 2, 3])
    heads = kv_heads * draw.choice([1, 2, 3])
    sizes = dict(vocab_size=draw.randint(40, 90), hidden_size=heads * draw.choice([6, 8, 10]), intermediate_size=draw.randint(20, 70),
                 num_hidden_layers=draw.randint(1, 3), num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=96,
                 tie_word_embeddings=draw.random() < 0.5, rms_norm_eps=draw.choice([1e-5, 1e-6]),
                 rope_parameters=rope(draw, rope_kind or draw.choice(["default", "linear", "llama3"]), draw.choice([1e4, 5e5])))
    if draw.random() < 0.5 and name != "Qwen2":
        sizes["head_dim"] = draw.choice([4, 8, 12])
    return getattr(transformers, name + "Config")(**{**sizes, "bos_token_id": 0, "eos_token_id": 1, **more})


def random_config(draw, name, rope_kind=None, **more):
    """A small configuration of the family GPT2, Llama, Mistral or Qwen2; `more` fixes what shall not be random."""
    if name == "GPT2":
        heads = draw.choice([1, 3, 5])
        sizes = dict(vocab_size=draw.randint(40, 90), max_position_embeddings=96, hidden_size=heads * draw.choice([7, 8]),
                     num_hidden_layers=draw.randint(1, 3), num_attention_heads=heads, bos_token_id=0, eos_token_id=1)
        return transformers.GPT2Config(**{**sizes, **more})
    if name == "Mistral":
        return llama_like(draw, name, rope_kind, **{"sliding_window": draw.choice([None, 96, 4096]), **more})
    if name == "Llama":
        return llama_like(draw, name, rope_kind, **{"attention_bias": draw.random() < 0.5, "mlp_bias": draw.random() < 0.5, **more})
    return llama_like(draw, name, rope_kind, **more)


def lively(model, scale=6):
    """Numbers large enough that tokens differ, biases and gains away from 0 and 1."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(scale)
            else:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@torch.no_grad()
def largest_difference(program, draw, model, checkpoint, lengths=(1, 9, 40)):
    """Of the log-probabilities of what the program generates greedily behind random prompts."""
    prompts = [[draw.randrange(2, model.config.vocab_size) for _ in range(length)] for length in lengths]
    said = program.made("generate", "--checkpoint", checkpoint, "--temperature", "0", "--max-new", "24", "--stop", "none",
                        "--logprobs", "--json", *[word for prompt in prompts for word in ("--prompt-ids", ",".join(map(str, prompt)))])
    worst, lines = 0.0, [json.loads(line) for line in said.splitlines()]
    assert [line["prompt_tokens"] for line in lines] == prompts and all(len(line["tokens"]) == 24 for line in lines), said
    for prompt, line in zip(prompts, lines):
        expected = model(torch.tensor([prompt + line["tokens"]])).logits[0].log_softmax(-1)
        for i, (token, logprob) in enumerate(zip(line["tokens"], line["logprobs"])):
            worst = max(worst, abs(expected[len(prompt) - 1 + i, token].item() - logprob))
    return worst


def texts(count=1000, seed=7):
    draw = random.Random(seed)
    words = ("the of and to in is was that it for Budapest naïve Zürich I'm we'll THEY'RE don't 2024 3.14159 1,000,000 foo_bar x+=1; "
             "def f(x): return x**2 http://a.b/c?d=e © € 漢字 かな 한국어 Привет שלום مرحبا नमस्ते ไทย 👍🏽 👩‍👩‍👧 e\u0301 ﬁ "
             "½ Ⅷ \u200b ΑΣ").split(" ")
    blanks = [" "] * 12 + ["  ", "   ", "\n", "\n\n", "\t", " \n", "\r\n", "\u00a0", "\u3000", "        "]
    out = []
    while len(out) < count:
        kind = draw.random()
        if kind < 0.6:
            text = "".join(draw.choice(words) + draw.choice(blanks) for _ in range(draw.randrange(1, 30)))
        elif kind < 0.8:
            text = "".join(chr(draw.choice([draw.randrange(32, 127), draw.randrange(0xa0, 0x600), draw.randrange(0x3000, 0x3200),
                                            draw.randrange(0x1f300, 0x1f700)])) for _ in range(draw.randrange(1, 40)))
        elif kind < 0.9:
            text = draw.choice(blanks) * draw.randrange(1, 5) + draw.choice(words) + draw.choice(blanks) * draw.randrange(0, 5)
        else:
            text = draw.choice(["<s>", "</s>", "<|im_start|>user\n", "<unk>", "[INST] ", "<|endoftext|>"]) + " ".join(draw.sample(words, 3))
        if text.strip("\x00") and all(unicodedata.category(c) not in ("Cn", "Cs") for c in text):
            out.append(text)
    return out


def byte_alphabet():
    """The letter that a byte-level tokenizer writes for each byte."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names = {b: chr(b) for b in own}
    for b in range(256):
        names.setdefault(b, chr(256 + len(names) - len(own)))
    return names


def without_unknown(tokenizer, some):
    """Texts without the unknown token's name: there it is that token in data, here letters."""
    return [t for t in some if not tokenizer.unk_token or tokenizer.unk_token not in t or tokenizer.unk_token == tokenizer.eos_token]


def without_special(tokenizer, some):
    names = [str(t) for t in tokenizer.added_tokens_decoder.values() if t.special]
    return [t for t in some if not any(name in t for name in names)]


def ids_of_text(tokenizer, text):
    """What a stage should learn of a text of its own: BOS where the tokenizer puts one, one EOS at the end."""
    ids, end = tokenizer(text)["input_ids"], tokenizer.eos_token_id
    return ids if end is None or ids[-1:] == [end] else ids + [end]


def ids_of_dialogue(tokenizer, messages, cue):
    """None where the chat template refuses it."""
    try:
        found = tokenizer.apply_chat_template(messages, add_generation_prompt=cue, tokenize=True, return_dict=True,
                                              date_string="26 Jul 2024")
        return list(found["input_ids"])
    except Exception:
        return None


def rows(path, name="tokens"):
    """A row list of a dataset file."""
    import h5py
    with h5py.File(path) as file:
        offsets, values = file[name + "/offsets"][:], file[name + "/values"][:]
    return [values[a:b].tolist() for a, b in zip(offsets[:-1], offsets[1:])]


def samples(path):
    """(token ids, which of them are learned) of every sample of a supervised dataset."""
    import h5py
    with h5py.File(path) as file:
        mask = file["mask"][:].tolist()
    out, begin = [], 0
    for tokens in rows(path):
        out.append((tokens, mask[begin:begin + len(tokens)]))
        begin += len(tokens)
    return out


def check_dialogues(program, checkpoint, there, row, scratch):
    """DIALOGUES become in `prepare` and `generate` the ids that every tokenizer of `there` gives, or are refused as there.

    (dialogues compared, refused); an AssertionError where one differs. `row`: the chat template's name. Writes scratch.jsonl and .h5.
    """
    compared = refused = 0
    for messages in DIALOGUES:
        messages = [{"role": role, "content": text} for role, text in messages]
        expected = [ids_of_dialogue(tokenizer, messages, True) for tokenizer in there]
        whole = [ids_of_dialogue(tokenizer, messages + [{"role": "assistant", "content": ANSWER}], False) for tokenizer in there]
        assert expected.count(expected[0]) == whole.count(whole[0]) == len(there), (row, expected, whole)
        lines, data = scratch + ".jsonl", scratch + ".h5"
        with open(lines, "w") as file:
            file.write(json.dumps({"messages": messages + [{"role": "assistant", "content": ANSWER}]}) + "\n")
        code, _, problem = program.run("prepare", lines, "--like", checkpoint, "--output", data)
        if code != 0:
            assert "chat template" in problem and (expected[0] is None or row in ("phi-3-mini", "phi-3-medium")), (row, problem)
            refused += 1
            continue
        assert expected[0] is not None, row
        [(tokens, mask)] = samples(data)
        learned = mask.index(1)
        assert tokens[:learned] == expected[0], (row, messages, tokens[:learned], expected[0])
        if tokens != whole[0][:len(tokens)]:  # the system turn stands elsewhere once there is an answer
            assert row in ("mistral-v3", "mistral-tekken") and messages[0]["role"] == "system", (row, messages, tokens, whole[0])
        compared += 1
        users = [m["content"] for m in messages if m["role"] == "user"]
        if len(users) > 1:
            continue
        system = [f"--system={m['content']}" for m in messages if m["role"] == "system"]
        line = json.loads(program.made("generate", "--checkpoint", checkpoint, "--prompt", users[0], *system, "--json", "--max-new=1"))
        assert line["prompt_tokens"] == expected[0], (row, messages, line["prompt_tokens"], expected[0])
    return compared, refused
