# What transformers prints for the chat templates that src/data/chat_templates.cpp knows.
#   PYTHON chat_templates.py check          compares with tests/data/chat_templates.json, which the unit tests read
#   PYTHON chat_templates.py write          makes its "prints" anew
# PYTHON is one with transformers: COLLIMATE_ORACLE in tests/real/chat.sh.
import json, pathlib, sys

sys.path.pop(0)  # this folder has files named as packages are
from transformers.utils.chat_template_utils import _compile_jinja_template as compile_template

path = pathlib.Path(__file__).resolve().parent.parent / "data" / "chat_templates.json"
file = json.loads(path.read_text())
BOS, EOS, DATE = "<s>", "</s>", "26 Jul 2024"
roles = {"human": "user"}


def printed(template, turns, cue):
    messages = [{"role": roles.get(role, role), "content": text} for role, text in turns]
    try:
        return template.render(messages=messages, add_generation_prompt=cue, bos_token=BOS, eos_token=EOS, date_string=DATE)
    except Exception:  # raise_exception of the template
        return None


def prints(text):
    template, out = compile_template(text), []
    for dialogue in file["dialogues"]:
        prompt = printed(template, dialogue, True)
        whole = printed(template, dialogue + [["assistant", file["answer"]]], False)
        if prompt is None or whole is None:
            out.append(None)
        elif whole.startswith(prompt):
            out.append([prompt, None, whole[len(prompt):]])
        else:  # the cue is no part of a dialogue with an answer, or the system turn moves
            out.append([prompt, whole, None])
    return out


made, numbers = [], []
for entry in file["texts"]:
    out = prints(entry["text"])
    if out not in made:
        made.append(out)
    numbers.append(made.index(out))
if sys.argv[1] == "write":
    for entry, number in zip(file["texts"], numbers):
        entry["prints"] = number
    file["prints"] = made
    path.write_text(json.dumps(file, ensure_ascii=False, indent=0) + "\n")
    print(len(file["texts"]), "texts,", len(made), "ways to print", len(file["dialogues"]), "dialogues")
else:
    wrong = [entry["from"] for entry, number in zip(file["texts"], numbers) if file["prints"][entry["prints"]] != made[number]]
    print(len(file["texts"]) - len(wrong), "texts as recorded", "WRONG: " + ", ".join(wrong) if wrong else "")
    sys.exit(bool(wrong))
