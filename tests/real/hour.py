"""What a new user does in the first hour, compared with transformers at every step.

    hour.py PROGRAM MPIRUN FOLDER [SEED [NUMBER ...]]

transformers writes folders of every family with random weights and tokenizers of every kind of KINDS. Each is imported: the same
log-probabilities, and the same ids of 200 mixed texts. Six answers are learned in three steps on one rank and on 2 x 1 x 2 (tensor x data x
pipeline) ranks: the same ids, the same files, and the losses and gradient norms of torch. The checkpoint is exported: again the same
log-probabilities and ids, with a chat template also those of dialogues. A table says what was found; exit code 1 where anything differs.
With NUMBERs only these folders are made, as they are among all.
"""
import base64
import filecmp
import json
import os
import random
import shutil
import sys
import tempfile

import oracle
import sentencepiece
import tokenizer_kinds as kinds
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

PROGRAM, MPIRUN, FOLDER = oracle.Program(sys.argv[1]), sys.argv[2].split(), sys.argv[3]
SEED = int(sys.argv[4]) if len(sys.argv) > 4 else random.SystemRandom().randrange(10 ** 6)
ONLY = [int(word) for word in sys.argv[5:]]
STEPS, RATE, TEXTS = 3, 1e-3, 200
draw = random.Random(SEED)


def save(folder, tokenizer, bos=None, eos=None, unk=None, before=None, behind=None, template=None):
    """As transformers saves it. before, behind: tokens that the tokenizer puts around every text."""
    around = [t for t in (before, behind) if t]
    if around:
        tokenizer.post_processor = processors.TemplateProcessing(single=" ".join(t for t in (before, "$A", behind) if t),
                                                                 special_tokens=[(t, tokenizer.token_to_id(t)) for t in around])
    saved = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, unk_token=unk)
    saved.chat_template = template
    saved.save_pretrained(folder)


def chat(tokenizer, *names):
    """One of the chat templates with these names; its special tokens are added to the tokenizer."""
    entry = draw.choice([e for e in oracle.CHAT_TEMPLATES if e["row"] in names])
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in oracle.CHAT_TOKENS if t in entry["text"]])
    return entry["text"]


def gpt2(folder):
    t = kinds.byte_bpe(None, kinds.bl(), vocab=draw.randint(400, 800))
    template = draw.choice([None, chat(t, "chatml", "smollm2", "vicuna", "alpaca")])
    save(folder, t, bos="<|endoftext|>", eos="<|endoftext|>", template=template)


def qwen2(folder):
    t = kinds.byte_bpe(normalizers.NFC(), pre_tokenizers.Sequence([kinds.split((kinds.QWEN,)), kinds.bl(regex=False)]),
                       vocab=draw.randint(400, 800), special=("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    save(folder, t, eos=draw.choice(["<|im_end|>", "<|endoftext|>"]), template=chat(t, "qwen2", "qwen2.5", "chatml"))


def llama3(folder):
    t = kinds.byte_bpe(None, pre_tokenizers.Sequence([kinds.split((kinds.LLAMA3,)), kinds.bl(regex=False)]), ignore=True,
                       vocab=draw.randint(400, 800), special=("<|begin_of_text|>", "<|end_of_text|>"))
    template = chat(t, "llama-3", "llama-3.1")
    eos = draw.choice(["<|end_of_text|>", "<|eot_id|>"])
    save(folder, t, bos="<|begin_of_text|>", eos=eos, before="<|begin_of_text|>", template=template)


def sentencepiece_model(folder):
    """tokenizer.model alone, as LLaMA 2's first folders."""
    with tempfile.TemporaryDirectory() as scratch:
        with open(scratch + "/texts", "w", encoding="utf-8") as file:
            file.writelines(line + "\n" for text in kinds.CORPUS for line in text.splitlines())
        sentencepiece.SentencePieceTrainer.Train(
            input=scratch + "/texts", model_prefix=scratch + "/m", vocab_size=draw.randint(700, 900), model_type="bpe", byte_fallback=True,
            normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True, minloglevel=2)
        shutil.copy(scratch + "/m.model", folder + "/tokenizer.model")
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True,
              "add_eos_token": False, "legacy": draw.random() < 0.5}
    if draw.random() < 0.5:
        known = ("llama-2", "mistral-v0.1", "zephyr", "vicuna")
        config["chat_template"] = draw.choice([e for e in oracle.CHAT_TEMPLATES if e["row"] in known])["text"]
    with open(folder + "/tokenizer_config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if config["legacy"]:  # a blank before every text, as the library has it; transformers 5 puts none before one that begins with a blank
        tokenizer.library = sentencepiece.SentencePieceProcessor(model_file=folder + "/tokenizer.model")
    return tokenizer


def llama2(folder):
    t = kinds.spm_bpe(kinds.LLAMA_NORM(), None, kinds.LLAMA_DEC(), vocab=draw.randint(600, 900))
    template = draw.choice([None, chat(t, "llama-2", "mistral-v0.2", "zephyr")])
    save(folder, t, bos="<s>", eos="</s>", unk="<unk>", before="<s>", template=template)


def unigram(folder):
    scheme = draw.choice(["always", "first"])
    t = kinds.unigram(None, pre_tokenizers.Metaspace("▁", scheme, scheme == "always"), decoders.Metaspace("▁", scheme, scheme == "always"),
                      vocab=draw.randint(350, 500))
    save(folder, t, eos="</s>", unk="<unk>", behind="</s>")


def wordpiece(folder):
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer, t.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    t.train_from_iterator(kinds.CORPUS, trainers.WordPieceTrainer(
        vocab_size=draw.randint(400, 600), special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False))
    save(folder, t, bos="[CLS]", eos="[SEP]", unk="[UNK]", before="[CLS]", behind="[SEP]")


def wordlevel(folder):
    t = Tokenizer(models.WordLevel(unk_token="<unk>"))
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(True)])
    t.train_from_iterator(kinds.CORPUS, trainers.WordLevelTrainer(
        vocab_size=draw.randint(200, 400), special_tokens=["<unk>", "<s>", "</s>"], show_progress=False))
    save(folder, t, bos="<s>", eos="</s>", unk="<unk>", before="<s>")


def tiktoken(folder):
    """A file of tiktoken, which transformers does not read: what it says comes from the tokenizer whose ranks these are."""
    t = kinds.byte_bpe(None, kinds.bl(), vocab=draw.randint(400, 800), special=())
    letters = oracle.byte_alphabet()
    bytes_of = {letter: byte for byte, letter in letters.items()}
    ranks = sorted(t.get_vocab().items(), key=lambda item: item[1])
    with open(folder + "/r50k_base.tiktoken", "w") as file:
        file.writelines(f"{base64.b64encode(bytes(bytes_of[c] for c in token)).decode()} {rank}\n" for token, rank in ranks)
    t.add_special_tokens(["<|endoftext|>"])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=t, bos_token="<|endoftext|>", eos_token="<|endoftext|>")


KINDS = {"GPT-2": gpt2, "Qwen2": qwen2, "LLaMA 3": llama3, "LLaMA 2 .model": sentencepiece_model, "LLaMA 2 .json": llama2,
         "Unigram": unigram, "WordPiece": wordpiece, "WordLevel": wordlevel, "tiktoken": tiktoken}
FAMILIES = [("GPT2", None), ("Llama", "default"), ("Llama", "llama3"), ("Llama", "linear"), ("Mistral", "default"), ("Qwen2", "default"),
            ("Qwen2", "linear")]


def counted(wrong, total):
    return f"{total - wrong} of {total}"


def compare_ids(checkpoint, tokenizer, scratch):
    """(how many of the texts have other ids, how many texts)"""
    which = oracle.without_special(tokenizer, oracle.without_unknown(tokenizer, oracle.texts(TEXTS, SEED)))
    with open(scratch + ".jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in which)
    PROGRAM.made("prepare", scratch + ".jsonl", "--like", checkpoint, "--output", scratch + ".h5")
    found = oracle.rows(scratch + ".h5")
    assert len(found) == len(which), f"{len(which)} texts became {len(found)} samples"
    wrong = 0
    for text, ours in zip(which, found):
        if hasattr(tokenizer, "library"):
            theirs = [tokenizer.bos_token_id, *tokenizer.library.encode(text), tokenizer.eos_token_id]
        else:
            theirs = oracle.ids_of_text(tokenizer, text)
        if ours != theirs:
            wrong += 1
            if wrong < 3:
                print(f"    {text!r}\n    ours   {ours[:30]}\n    theirs {theirs[:30]}", flush=True)
    return wrong, len(which)


def sentence(low, high):
    words = ["the", "cat", "sat", "on", "Hello", "world", "2024", "naïve", "it's", "3.14", "fox", "dog,", "漢字", "(x+1)"]
    return " ".join(draw.choice(words) for _ in range(draw.randint(low, high)))


def prepare(checkpoint, tokenizer, scratch):
    """Six samples of answers; their ids are those of transformers."""
    records, expected = [], []
    for _ in range(6):
        question, answer = sentence(1, 6), sentence(1, 8)
        if tokenizer.chat_template:
            turns = [{"role": "user", "content": question}]
            if draw.random() < 0.5:
                turns += [{"role": "assistant", "content": sentence(1, 3)}, {"role": "user", "content": sentence(1, 3)}]
            records.append({"messages": turns + [{"role": "assistant", "content": answer}]})
            expected.append(oracle.ids_of_dialogue(tokenizer, turns, True))
        else:
            more = draw.choice(["", sentence(1, 3)])
            records.append({"instruction": question, "input": more, "output": answer})
            ids, end = tokenizer(f"Q: {question}\n{more}\nA:" if more else f"Q: {question}\nA:")["input_ids"], tokenizer.eos_token_id
            expected.append(ids[:-1] if ids[-1:] == [end] else ids)
    with open(scratch + ".jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    PROGRAM.made("prepare", scratch + ".jsonl", "--like", checkpoint, "--output", scratch + ".h5")
    found = oracle.samples(scratch + ".h5")
    for (tokens, mask), prompt, record in zip(found, expected, records, strict=True):
        assert tokens[:mask.index(1)] == prompt, f"{record}: ours {tokens[:mask.index(1)]}, theirs {prompt}"
    return found


def torch_losses(model, found):
    """Losses and gradient norms of the steps of AdamW that the deck asks for: all samples are in each."""
    model.train()
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 1.0}, {"params": others, "weight_decay": 0.0}], lr=RATE,
                                  betas=(0.9, 0.95), eps=1e-8)
    count, steps = sum(sum(mask) for _, mask in found), []
    for _ in range(STEPS):
        optimizer.zero_grad()
        total = 0.0
        for tokens, mask in found:
            logits = model(torch.tensor([tokens])).logits[0, :-1]
            targets = torch.tensor([t if learned else -100 for t, learned in zip(tokens, mask)][1:])
            loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / count
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
        optimizer.step()
        steps.append((total, norm))
    return steps


def train(checkpoint, data, folder):
    """(the steps' losses and gradient norms, whether 2 x 1 x 2 ranks wrote the bytes of one)"""
    deck = folder + "/deck.ini"
    with open(deck, "w") as file:
        file.write("[run]\nstages = sft\nhash_every = 1\n[numerics]\ntensor_shards = 2\n[batch]\ngrain_tokens = 512\n"
                   f"[sft]\ninit = {checkpoint}\ndata = {data}\nbatch = 6\nsteps = {STEPS}\nrate = {RATE}\n"
                   "schedule = constant\nweight_decay = 1\n")
    PROGRAM.made("run", deck, f"--run.folder={folder}/one", launcher=[*MPIRUN, "-np", "1"])
    grid = ["--grid.tensor=2", "--grid.data=1", "--grid.pipeline=2"]
    PROGRAM.made("run", deck, f"--run.folder={folder}/grid", *grid, launcher=[*MPIRUN, "-np", "4"])
    same = all(filecmp.cmp(f"{folder}/one/{name}", f"{folder}/grid/{name}", shallow=False) for name in ("metrics.jsonl", "hashes.jsonl"))
    with open(folder + "/grid/metrics.jsonl") as file:
        lines = [json.loads(line) for line in file]
    return [(line["loss"], line["gradient_norm"]) for line in lines if "loss" in line], same


def one(number, family, rope_kind, tied, kind):
    here = f"{FOLDER}/{number}"
    os.makedirs(here + "/hf")
    draw.seed(f"{SEED} {number}")
    torch.manual_seed(SEED + number)
    # Read before there is a config.json: beside that of a Qwen2 model, transformers takes every tokenizer for a Qwen2Tokenizer.
    tokenizer = KINDS[kind](here + "/hf") or transformers.AutoTokenizer.from_pretrained(here + "/hf")
    as_qwen2 = family == "Qwen2" and kind != "Qwen2"
    more = {"rope_kind": rope_kind}
    if family == "GPT2":
        more.update(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    if family == "Mistral":
        more.update(sliding_window=draw.choice([None, 512, 4096]))
    config = oracle.random_config(draw, family, vocab_size=len(tokenizer) + draw.choice([0, 3]), tie_word_embeddings=tied,
                                  num_hidden_layers=draw.randint(2, 3), max_position_embeddings=512, bos_token_id=tokenizer.bos_token_id,
                                  eos_token_id=tokenizer.eos_token_id, **more)
    dtype = draw.choice([torch.float32, torch.bfloat16, torch.float16])
    model = oracle.lively(transformers.AutoModelForCausalLM.from_config(config)).to(dtype)
    model.save_pretrained(here + "/hf", max_shard_size=draw.choice(["50KB", "5GB"]))
    load = transformers.AutoModelForCausalLM.from_pretrained
    model = load(here + "/hf", dtype=torch.float32)
    chatty = bool(tokenizer.chat_template)
    row = {"folder": f"{number} {family}" + ("" if rope_kind in (None, "default") else f" {rope_kind}"), "tokenizer": kind,
           "heads": config.num_attention_heads, "kv": getattr(config, "num_key_value_heads", config.num_attention_heads),
           "type": str(dtype)[6:], "tied": "yes" if tied else "no"}

    template = [] if chatty else ["--prompt-template", "Q: {prompt}[[\\n{input}]]\\nA:"]
    said = PROGRAM.made("import", "--model", here + "/hf", "--output", here + "/c", *template)
    name = said.partition("chat template: ")[2].split()[0].strip(",.;:") if chatty else "-"
    row["chat"] = name
    difference = oracle.largest_difference(PROGRAM, draw, model, here + "/c")
    row["import"], ok = f"{difference:.0e}", difference < 1e-4
    wrong, total = compare_ids(here + "/c", tokenizer, here + "/texts")
    row["ids"], ok = counted(wrong, total), ok and wrong == 0

    found = prepare(here + "/c", tokenizer, here + "/answers")
    steps, same = train(here + "/c", here + "/answers.h5", here)
    expected = torch_losses(model, found)
    row["grid"], ok = "equal" if same else "OTHER", ok and same
    assert len(steps) == STEPS
    difference = max(abs(ours[0] - theirs[0]) for ours, theirs in zip(steps, expected))
    norms = max(abs(ours[1] / theirs[1] - 1) for ours, theirs in zip(steps, expected))
    row["loss"], row["gradient"], ok = f"{difference:.0e}", f"{norms:.0e}", ok and difference < 1e-5 and norms < 5e-5

    trained = here + "/grid/checkpoints/sft"
    said = PROGRAM.made("export", "--checkpoint", trained, "--output", here + "/out", "--dtype", "f32",
                        "--shard-size", draw.choice(["50KB", "5GB"]))
    difference = oracle.largest_difference(PROGRAM, draw, load(here + "/out", dtype=torch.float32), trained)
    row["export"], ok = f"{difference:.0e}", ok and difference < 1e-4
    assert ("Qwen2Tokenizer" in said) == as_qwen2, said
    exported = (transformers.PreTrainedTokenizerFast if as_qwen2 else transformers.AutoTokenizer).from_pretrained(here + "/out")
    wrong, total = compare_ids(trained, exported, here + "/texts-out")
    row["ids out"], ok = counted(wrong, total), ok and wrong == 0
    row["dialogues"] = "-"
    if chatty:
        compared, refused = oracle.check_dialogues(PROGRAM, trained, [tokenizer, exported], name, here + "/dialogue")
        row["dialogues"] = f"{compared} equal" + (f", {refused} refused" if refused else "")
    row["result"] = "ok" if ok else "WRONG"
    return row


def main():
    print(f"seed {SEED}, transformers {transformers.__version__}, torch {torch.__version__}", flush=True)
    shutil.rmtree(FOLDER, ignore_errors=True)
    plan = [(family, rope_kind, tied) for family, rope_kind in FAMILIES for tied in (True, False)]
    names = list(KINDS) + draw.sample(list(KINDS), len(plan) - len(KINDS))
    draw.shuffle(names)
    table = []
    for number, ((family, rope_kind, tied), kind) in enumerate(zip(plan, names)):
        if ONLY and number not in ONLY:
            continue
        try:
            table.append(one(number, family, rope_kind, tied, kind))
        except Exception as error:  # the others are still tried
            print(f"{number} {family}, {kind}: {type(error).__name__}: {error}", flush=True)
            table.append({"folder": f"{number} {family}", "tokenizer": kind, "result": "WRONG"})
    columns = list(dict.fromkeys(key for row in table for key in row if key != "result")) + ["result"]
    lines = [columns] + [[str(row.get(key, "")) for key in columns] for row in table]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
    wrong = sum(row["result"] != "ok" for row in table)
    print(f"{len(table) - wrong} of {len(table)} folders right, seed {SEED}")
    return 1 if wrong else 0


sys.exit(main())
