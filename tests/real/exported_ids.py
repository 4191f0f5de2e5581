"""The token ids that a stage learns from are those that transformers gives for the exported folder.

Usage: exported_ids.py PROGRAM SCRATCH [NAME ...]. For every kind of tokenizer that can be made or found: a folder with a tiny random model is
imported, 1,000 mixed texts are prepared, the checkpoint is exported, and the ids of every text, with BOS and EOS, as it is and in a template
with a special token in its middle, are compared with those of AutoTokenizer for the exported folder.
"""
import base64, json, os, shutil, sys

from oracle import Program, byte_alphabet, ids_of_text, rows, texts, without_special, without_unknown
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

run, SCRATCH, ONLY = Program(sys.argv[1]).made, sys.argv[2], sys.argv[3:]
DATA = os.environ.get("COLLIMATE_TEST_DATA", "")
MORE = os.environ.get("COLLIMATE_TOKENIZERS", "")  # a folder with further tokenizer files, one kind a folder


def model(folder, rows, bos=None, eos=None):
    torch.manual_seed(1)
    LlamaForCausalLM(LlamaConfig(vocab_size=rows, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                                 max_position_embeddings=64, bos_token_id=bos, eos_token_id=eos)).save_pretrained(folder)


def write(folder, name, content):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(content if isinstance(content, str) else json.dumps(content))


def kinds():
    """name -> function that fills a folder and returns (rows, the special token that the template has in its middle)."""
    found = {}

    def own(train):
        def make(folder):
            run("prepare", "--example", os.path.join(folder, "ex"), *(["--train-bpe", "500"] if train else []))
            with open(os.path.join(folder, "ex/tokenizer.json"), encoding="utf-8") as file:
                tokenizer = json.load(file)
            shutil.rmtree(os.path.join(folder, "ex"))
            write(folder, "tokenizer.json", tokenizer)
            write(folder, "tokenizer_config.json", {"bos_token": "<|bos|>", "eos_token": "<|endoftext|>", "add_bos_token": train})
            return len(tokenizer["model"]["vocab"]) + len(tokenizer["added_tokens"]), "<|endoftext|>"
        return make
    found["own-bpe"] = own(True)

    def trained(spaces, normalizer, add_bos):
        def make(folder):
            from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
            t = Tokenizer(models.BPE())
            t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaces)
            t.decoder = decoders.ByteLevel()
            if normalizer:
                t.normalizer = normalizers.NFC()
            t.train_from_iterator(texts(200), trainers.BpeTrainer(vocab_size=600, special_tokens=["<s>", "</s>"], show_progress=False,
                                                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
            if add_bos:
                t.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
            t.save(os.path.join(folder, "tokenizer.json"))
            write(folder, "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"})
            return t.get_vocab_size(), "</s>"
        return make
    found["json-byte-level"] = trained(False, False, False)
    found["json-prefix-space"] = trained(True, False, False)
    found["json-bos-and-eos"] = trained(False, False, True)
    found["json-nfc"] = trained(False, True, True)

    def pair(config, rows=50257, special="<|endoftext|>"):
        def make(folder):
            shutil.copy(DATA + "/tokenizers/gpt2_encoder.json", folder + "/vocab.json")
            shutil.copy(DATA + "/tokenizers/gpt2_vocab.bpe", folder + "/merges.txt")
            if config is not None:
                write(folder, "tokenizer_config.json", config)
            return rows, special
        return make
    chat = {str(50257 + i): {"content": name, "special": True} for i, name in enumerate(["<|im_start|>", "<|im_end|>"])}
    if DATA:
        found["gpt2-pair"] = pair(None)
        found["gpt2-pair-no-bos"] = pair({"add_bos_token": False, "bos_token": "<|endoftext|>", "tokenizer_class": "GPT2Tokenizer"})
        found["gpt2-pair-bos"] = pair({"add_bos_token": True, "bos_token": "<|endoftext|>", "tokenizer_class": "GPT2Tokenizer"})
        found["gpt2-pair-prefix"] = pair({"add_prefix_space": True, "tokenizer_class": "GPT2Tokenizer"})
        found["qwen2-pair"] = pair({"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "added_tokens_decoder": chat}, 50259, "<|im_end|>")

    def pieces(config, rows=32000, added=None, special="</s>"):
        def make(folder):
            shutil.copy(DATA + "/tokenizers/llama2_tokenizer.model", folder + "/tokenizer.model")
            if config is not None:
                write(folder, "tokenizer_config.json", config)
            if added is not None:
                write(folder, "added_tokens.json", added)
            return rows, special
        return make
    llama = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "LlamaTokenizer"}
    if DATA:
        found["sentencepiece"] = pieces(None)
        found["sentencepiece-empty-texts"] = pieces({"bos_token": "", "eos_token": "", "unk_token": ""})
        found["sentencepiece-legacy"] = pieces({**llama, "legacy": True, "add_bos_token": True})
        found["sentencepiece-new"] = pieces({**llama, "legacy": False, "add_bos_token": True})
        found["sentencepiece-no-bos"] = pieces({**llama, "legacy": False, "add_bos_token": False})
        found["sentencepiece-no-blank"] = pieces({**llama, "add_prefix_space": False})
        found["sentencepiece-added"] = pieces({**llama, "legacy": True}, 32002, {"<|im_start|>": 32000, "<|im_end|>": 32001}, "<|im_end|>")
        found["sentencepiece-without-bytes"] = lambda folder: (shutil.copy(DATA + "/models/babyllama105/tok105.model", folder + "/tokenizer.model"), (105, "</s>"))[1]
        found["llama2c"] = lambda folder: (shutil.copy(DATA + "/models/stories260K/tok512.bin", folder + "/tok512.bin"), (512, "</s>"))[1]
        found["llama2c-without-bytes"] = lambda folder: (shutil.copy(DATA + "/models/babyllama105/tok105.bin", folder + "/tok105.bin"), (105, "</s>"))[1]

        def tiktoken(folder):
            names = {v: k for k, v in byte_alphabet().items()}
            with open(DATA + "/tokenizers/gpt2_encoder.json", encoding="utf-8") as file:
                vocabulary = sorted(json.load(file).items(), key=lambda item: item[1])[:-1]
            write(folder, "r50k_base.tiktoken",
                  "".join(f"{base64.b64encode(bytes(names[c] for c in token)).decode()} {rank}\n" for token, rank in vocabulary))
            return 50257, "<|endoftext|>"
        found["tiktoken-r50k"] = tiktoken
    for name in sorted(os.listdir(MORE)) if MORE else []:
        def further(folder, source=os.path.join(MORE, name)):
            for file in os.listdir(source):
                shutil.copy(os.path.join(source, file), folder)
            with open(os.path.join(source, "kind.json"), encoding="utf-8") as file:  # {"rows": ..., "special": ...}
                kind = json.load(file)
            return kind["rows"], kind["special"]
        found[name] = further
    return {name: make for name, make in found.items() if not ONLY or name in ONLY}


def compare(name, make):
    folder = os.path.join(SCRATCH, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder + "/hf")
    size, special = make(folder + "/hf")
    model(folder + "/hf", size)
    template = ["--prompt-template", "hi " + special + "\\n<|user|>\\n{prompt} you" + special + "me"]
    said = run("import", "--model", folder + "/hf", "--output", folder + "/c", *template)
    run("export", "--checkpoint", folder + "/c", "--output", folder + "/e")
    theirs = AutoTokenizer.from_pretrained(folder + "/e")
    assert theirs.eos_token_id is not None, "the exported folder names no end of text"
    wrong, shown = [0, 0, 0], ""
    every = without_unknown(theirs, texts())
    plain = without_special(theirs, every)
    jobs = [("plain", plain, ["--like", folder + "/c"], lambda t: t), ("special", every, ["--like", folder + "/c", "--special-in-text"], lambda t: t)]
    jobs.append(("template", plain, ["--like", folder + "/c"], lambda t: "hi " + special + "\n<|user|>\n" + t + " you" + special + "me"))
    for number, (job, which, options, wrapped) in enumerate(jobs):
        field = (lambda t: {"prompt": t, "response": "x"}) if job == "template" else (lambda t: {"text": t})
        with open(folder + f"/{job}.jsonl", "w", encoding="utf-8") as file:
            for text in which:
                file.write(json.dumps(field(text)) + "\n")
        if job == "template":
            run("prepare", folder + "/template.jsonl", "--kind", "prompts", *options, "--output", folder + "/template.h5")
            ours = rows(folder + "/template.h5", "prompt")
        else:
            run("prepare", folder + f"/{job}.jsonl", "--kind", "supervised", *options, "--output", folder + f"/{job}.h5")
            ours = rows(folder + f"/{job}.h5")
        for text, got in zip(which, ours):
            want = theirs(wrapped(text))["input_ids"] if job == "template" else ids_of_text(theirs, text)
            if job == "special" and len(want) > 1 and want[0] == want[1] == theirs.bos_token_id:
                want = want[1:]
            if got != want:
                wrong[number] += 1
                shown = shown or f"\n    {job}: {text!r}\n    ours   {got[:24]}\n    theirs {want[:24]}"
        assert len(which) == len(ours), f"{job}: {len(which)} texts became {len(ours)} samples"
    print(f"{name:28} {len(plain):5} texts: {wrong[0]} differ; {len(every)} with special tokens: {wrong[1]}; in a template: {wrong[2]}{shown}", flush=True)
    return sum(wrong) == 0


def stops():
    """Greedy continuations of a random model end where those of transformers do, and do so again after an export."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    base = os.path.join(SCRATCH, "stops")
    shutil.rmtree(base, ignore_errors=True)
    wrong = []
    for name, generation, config, tokenizer in [("generation_config", {"eos_token_id": [1, 245]}, {}, "auto"), ("config list", None, {"eos_token_id": [1, 245]}, "auto"),
                                                ("one", {"eos_token_id": 1}, {}, "auto"), ("no tokenizer", {"eos_token_id": [1, 245]}, {}, "none"),
                                                ("no tokenizer, config", None, {"eos_token_id": 245}, "none")]:
        folder = os.path.join(base, name.replace(" ", "-"))
        os.makedirs(folder + "/hf")
        t = Tokenizer(models.BPE())
        t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        t.train_from_iterator(["the cat sat on the mat and the dog ran to the cat", "hello world, hello there"] * 5, trainers.BpeTrainer(
            vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
        t.save(folder + "/hf/tokenizer.json")
        torch.manual_seed(1)
        m = LlamaForCausalLM(LlamaConfig(vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                                         num_key_value_heads=2, max_position_embeddings=64, bos_token_id=0, eos_token_id=1, tie_word_embeddings=False))
        for parameter in m.parameters():
            if parameter.dim() > 1:
                parameter.data.mul_(6)
        m.save_pretrained(folder + "/hf")
        os.remove(folder + "/hf/generation_config.json")
        if generation is not None:
            write(folder + "/hf", "generation_config.json", {"bos_token_id": 0, "do_sample": False, **generation})
        with open(folder + "/hf/config.json", encoding="utf-8") as file:
            write(folder + "/hf", "config.json", {**json.load(file), **config})
        run("import", "--model", folder + "/hf", "--output", folder + "/c", "--tokenizer", tokenizer)
        run("export", "--checkpoint", folder + "/c", "--output", folder + "/e")
        prompt = [0, 5, 20, 33, 40]
        said = run("generate", "--checkpoint", folder + "/c", "--prompt-ids", ",".join(map(str, prompt)), "--temperature", "0", "--max-new", "6")
        ours = [int(word) for word in said.split("tokens: ")[1].split("\n")[0].split(",")]
        theirs = [LlamaForCausalLM.from_pretrained(folder + "/" + which).generate(torch.tensor([prompt]), max_new_tokens=6, do_sample=False)[0].tolist()[5:]
                  for which in ("hf", "e")]
        print(f"stops, {name}: ours {ours}, theirs {theirs[0]}, theirs exported {theirs[1]}", flush=True)
        if not ours == theirs[0] == theirs[1]:
            wrong.append("stops, " + name)
    return wrong


def main():
    failed = stops() if not ONLY or "stops" in ONLY else []
    for name, make in kinds().items():
        try:
            if not compare(name, make):
                failed.append(name)
        except Exception as error:  # the others are still tried
            print(f"{name:28} {type(error).__name__}: {error}", flush=True)
            failed.append(name)
        shutil.rmtree(os.path.join(SCRATCH, name), ignore_errors=not ONLY)
    print("all equal" if not failed else "WRONG: " + ", ".join(failed))
    return 1 if failed else 0


sys.exit(main())
