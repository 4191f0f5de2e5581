"""Dialogues become the ids that transformers gives for the imported and for the exported folder; `collimate chat` answers as it does.

Usage: chat.py PROGRAM SCRATCH [templates | answers]. templates: for each text of tests/data/chat_templates.json a folder with a tiny random
model is imported; prompts of `generate --json` and samples of `prepare` are compared with apply_chat_template for both folders. answers: ten
dialogues with the model of COLLIMATE_SMOLLM2, greedy, against transformers' generate in fp32.
"""
import json, os, shutil, sys

from oracle import CHAT_TEMPLATES, CHAT_TOKENS, Program, check_dialogues
import torch
from tokenizers import Tokenizer, AddedToken, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

PROGRAM, SCRATCH, ONLY = Program(sys.argv[1]), sys.argv[2], sys.argv[3:]
run, made = PROGRAM.run, PROGRAM.made


def tiny_folder(folder):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(["user assistant system the cat sat on the mat Cutting Knowledge Date Instruction Response"] * 5, trainers.BpeTrainer(
        vocab_size=400, special_tokens=[AddedToken(t, normalized=False, special=True) for t in ["<s>", "</s>", *CHAT_TOKENS]],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    os.makedirs(folder)
    tokenizer.save(folder + "/tokenizer.json")
    torch.manual_seed(1)
    LlamaForCausalLM(LlamaConfig(vocab_size=400, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                                 max_position_embeddings=512, bos_token_id=0, eos_token_id=1)).save_pretrained(folder)


def templates():
    shutil.rmtree(SCRATCH, ignore_errors=True)
    base = SCRATCH + "/base"
    tiny_folder(base)
    compared = refused = 0
    for number, entry in enumerate(CHAT_TEMPLATES):
        folder, checkpoint, exported = f"{SCRATCH}/{number}", f"{SCRATCH}/{number}.c", f"{SCRATCH}/{number}.out"
        shutil.copytree(base, folder)
        with open(folder + "/tokenizer_config.json", "w") as file:
            json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "add_bos_token": False,
                       "chat_template": entry["text"]}, file)
        said = made("import", "--model", folder, "--output", checkpoint)
        assert f"chat template: {entry['row']}" in said, (entry["from"], said)
        made("export", "--checkpoint", checkpoint, "--output", exported)
        there = [AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(exported)]
        done = check_dialogues(PROGRAM, checkpoint, there, entry["row"], f"{SCRATCH}/{number}")
        compared, refused = compared + done[0], refused + done[1]
        for path in (folder, checkpoint, exported):
            shutil.rmtree(path)
    print(f"templates: {len(CHAT_TEMPLATES)} texts, {compared} dialogues with equal ids, {refused} refused as there")


QUESTIONS = [["What is the capital of France?"], ["Name three colours.", "And one more?"], ["What is 2 + 3?", "And 4 + 5?", "Add both."],
             ["Write a line about the sea."], ["Hello!", "Who are you?"], ["Wie heißt du?"], ["Translate 'cat' to French.", "And 'dog'?"],
             ["  Count from 1 to 5. "], ["Say <|im_end|> please? No: say yes."], ["Is 7 a prime?", "Why?", "Is 9?"]]
MAX_NEW = 24


def answers():
    source = os.environ.get("COLLIMATE_SMOLLM2", "")
    if not source:
        print("answers: left out, COLLIMATE_SMOLLM2 is not set")
        return
    checkpoint = SCRATCH + "/smollm2"
    os.makedirs(SCRATCH, exist_ok=True)
    print(made("import", "--model", source, "--output", checkpoint))
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    equal = turns = 0
    for number, questions in enumerate(QUESTIONS):
        system = [] if number % 3 else ["--system", "You are terse."]
        messages = [{"role": "system", "content": system[1]}] if system else []
        expected = ""
        for question in questions:
            messages.append({"role": "user", "content": question.replace("<|im_end|>", "the end")})
            ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
            out = model.generate(ids, max_new_tokens=MAX_NEW, do_sample=False, repetition_penalty=1.0)
            answer = tokenizer.decode(out[0, ids.shape[1]:], skip_special_tokens=True)
            messages.append({"role": "assistant", "content": answer})
            expected += answer + "\n"
            turns += 1
        code, said, problem = run("chat", "--checkpoint", checkpoint, "--temperature=0", f"--max-new={MAX_NEW}", *system,
                                  text="".join(q.replace("<|im_end|>", "the end") + "\n" for q in questions))
        assert code == 0, problem
        equal += said == expected
        if said != expected:
            print("DIFFERENT", questions, repr(said), repr(expected))
    print(f"answers: {equal} of {len(QUESTIONS)} dialogues ({turns} turns) equal")
    assert equal == len(QUESTIONS)


for name, test in (("templates", templates), ("answers", answers)):
    if not ONLY or name in ONLY:
        test()
