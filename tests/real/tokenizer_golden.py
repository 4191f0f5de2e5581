"""Writes tests/data/tokenizer_kinds_golden.hpp: small tokenizers of every kind of pipeline, and what the tokenizers package makes of texts."""
import json, sys, os
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tokenizer_kinds as K
from tokenizers import Tokenizer

TEXTS = ["", " a", "The quick  brown fox.", "It's what they've said: we'll GO!\n\n", "in 2023: 12,345 (3.14%) ²½Ⅷ٣", "Naïve café e\u0301 a\u0308\u0323 Å ﬁ ① Ａｂ ｶﾞ", "a\tb\r\n c\u00a0d\u3000e \u2028f\u200bg",
         "<|im_start|>Hi<|im_end|> <s>[INST] fox a foxes</s>", "汉字 and かなカナ 한국어 русский", "<\u0338 >\u0338 \u1100\u1161\u11a8 क्षि", "x_y=f(a&&b){c[i]++;} // ok...", "▁▁ Ġ <0x41> ## \u0000\u0001\u007f", "😀👍🏽🇩🇪", "   ", "İıſß ΣΑΣ ǅ", "'LL 'ſ ’s DON'T", "ﷺ㎏ “a” «b» …—", "word" * 40]

def fnv(ids):
    h = 0x811c9dc5
    for b in " ".join(map(str, ids)).encode(): h = (h ^ b) * 0x01000193 & 0xffffffff
    return f"{h:08x}"

def small_charsmap():
    import sentencepiece as spm, tempfile
    from sentencepiece import sentencepiece_model_pb2 as pb
    d = tempfile.mkdtemp()
    open(d + "/t", "w").write("\n".join(s.replace("\n", " ") for s in K.CORPUS))
    rules = {"\t": " ", "\r": " ", "\n": " ", "\u3000": " ", "\u00a0": " ", "\u200b": " ", "ﬁ": "fi", "①": "1", "Ａ": "A", "e\u0301": "é", "\u0001": "", "ﷺ": "صلى الله", "ｶ\uff9e": "ガ", "\u1100\u1161\u11a8": "각", "½": "1⁄2"}
    open(d + "/r.tsv", "w").write("".join(" ".join(f"{ord(c):X}" for c in a) + "\t" + " ".join(f"{ord(c):X}" for c in b) + "\n" for a, b in rules.items()))
    spm.SentencePieceTrainer.Train(input=d + "/t", model_prefix=d + "/m", vocab_size=300, hard_vocab_limit=False, normalization_rule_tsv=d + "/r.tsv", minloglevel=2)
    m = pb.ModelProto(); m.ParseFromString(open(d + "/m.model", "rb").read())
    return m.normalizer_spec.precompiled_charsmap

def shrink(j, base):
    """A file whose model is one of the shared ones."""
    j = {k: v for k, v in j.items() if k in ("normalizer", "pre_tokenizer", "decoder", "added_tokens") and v}
    j["base"] = base
    return j

def base_models():
    from tokenizers import models as M, pre_tokenizers as P, trainers as T, normalizers as N
    t = K.byte_bpe(None, K.bl(), vocab=256 + 60, special=())
    bytes_ = json.loads(t.to_str())["model"]
    t = K.spm_bpe(K.LLAMA_NORM(), None, K.LLAMA_DEC(), vocab=3 + 256 + 110)
    spm = json.loads(t.to_str())["model"]
    whole, K.CORPUS = K.CORPUS, [c for c in K.CORPUS if c.isascii()] + ["Naïve café déjà vu"]
    t = K.unigram(None, P.Metaspace("▁", "always", True), None, vocab=190)
    K.CORPUS = whole
    uni = json.loads(t.to_str())["model"]
    uni["vocab"] = [[p, round(s, 2)] for p, s in uni["vocab"][:230]]
    return bytes_, spm, uni

def main(path):
    cm = small_charsmap()
    K.charsmap = lambda: cm
    bytes_, spm, uni = base_models()
    alphabet = json.loads(K.byte_bpe(None, K.bl(), vocab=256, special=()).to_str())["model"]["vocab"]
    rows = []
    for name, t in K.kinds():
        j = json.loads(t.to_str())
        if name in ("llama2_unk", "llama2_unk_nofuse"): base = "spm_unk"
        elif j["model"]["type"] == "Unigram": base = "unigram"
        elif j["model"].get("byte_fallback"): base = "spm"
        elif name in ("end_of_word", "subword_prefix", "wordpiece", "wordlevel"): base = "own"
        else: base = "bytes"
        row = shrink(j, base)
        patch = {}
        if base == "bytes":
            model = json.loads(json.dumps(bytes_)); patch["ignore_merges"] = j["model"]["ignore_merges"]
        elif base == "spm":
            model = json.loads(json.dumps(spm)); patch["fuse_unk"] = j["model"]["fuse_unk"]
        elif base == "spm_unk":
            model = json.loads(json.dumps(spm)); patch = {"fuse_unk": j["model"]["fuse_unk"], "byte_fallback": False}
        elif base == "unigram":
            model = json.loads(json.dumps(uni))
            if j["model"]["byte_fallback"]: model["vocab"] += [[f"<0x{b:02X}>", -20.0] for b in range(256)]; patch["byte_fallback"] = True
        else:
            m = j["model"]; model = m
            if m["type"] == "BPE":
                s = m.get("end_of_word_suffix") or ""; p = m.get("continuing_subword_prefix") or ""
                base_v = sorted(v for v in m["vocab"] if len(v.removeprefix(p).removesuffix(s)) == 1 or v == "<unk>"); merges = m["merges"][:30]
                base_v = [v for v in base_v if v.isascii()]; merges = [q for q in merges if (q[0] + q[1]).isascii()]
                made = [a + b.removeprefix(p) if p else a + b for a, b in merges]
                names = list(dict.fromkeys(base_v + made)); ok = set(names); merges = [q for q in merges if q[0] in ok and q[1] in ok]
                m["merges"] = merges
            else: names = [v for v in m["vocab"] if v.isascii()][:120]
            m["vocab"] = {v: i for i, v in enumerate(names)}
            if "added_tokens" in row: row["added_tokens"] = [dict(a, id=m["vocab"][a["content"]]) for a in row["added_tokens"] if a["content"] in m["vocab"]]
            row["model"] = m
        model.update(patch)
        if patch and base != "own": row["patch"] = patch
        n = len(model["vocab"])
        if base != "own" and "added_tokens" in row:
            known = {p: i for i, (p, _) in enumerate(model["vocab"])} if isinstance(model["vocab"], list) else model["vocab"]
            row["added_tokens"] = [{k: v for k, v in a.items()} for a in row["added_tokens"]]
            extra = 0
            for a in row["added_tokens"]:
                if a["content"] in known: a["id"] = known[a["content"]]
                else: a["id"] = n + extra; extra += 1
        full = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": row.get("added_tokens", []), "normalizer": row.get("normalizer"), "pre_tokenizer": row.get("pre_tokenizer"), "post_processor": None, "decoder": row.get("decoder"), "model": model}
        t = Tokenizer.from_str(json.dumps(full))
        if "added_tokens" in row:
            row["added_tokens"] = [{k: v for k, v in a.items() if v is not False} | {"normalized": a["normalized"]} for a in row["added_tokens"]]
        row["name"] = name
        enc = [t.encode(s, add_special_tokens=False).ids for s in TEXTS]
        row["ids"] = " ".join(map(fnv, enc))
        row["lossless"] = "".join(str(int(t.decode(e, skip_special_tokens=False) == s)) for s, e in zip(TEXTS, enc))
        rows.append(row)
    # the byte vocabulary is the alphabet in its order, then what the merges make
    out = {"texts": TEXTS, "bytes": [" ".join(m) for m in bytes_["merges"]],
           "spm": {"pieces": [k for k, _ in sorted(spm["vocab"].items(), key=lambda x: x[1])][259:], "merges": [" ".join(m) for m in spm["merges"]]},
           "unigram": uni["vocab"], "rows": rows}
    assert [k for k, _ in sorted(alphabet.items(), key=lambda x: x[1])] == [k for k, _ in sorted(bytes_["vocab"].items(), key=lambda x: x[1])][:256]
    lines = [f'"texts": {json.dumps(TEXTS)}', f'"bytes": {json.dumps(out["bytes"], ensure_ascii=False)}', f'"spm": {json.dumps(out["spm"], ensure_ascii=False)}', f'"unigram": {json.dumps(uni["vocab"], ensure_ascii=False)}',
             '"rows": [\n' + ",\n".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")) for r in rows) + "\n]"]
    text = "{" + ",\n".join(lines) + "}"
    import textwrap
    chunks = [text[i:i + 12000] for i in range(0, len(text), 12000)]
    body = "\n".join(f'R"golden({c})golden"' for c in chunks)
    open(path, "w").write("#pragma once\n\n// Written by tests/real/tokenizer_golden.py with tokenizers 0.23.3.\n\nnamespace collimate {\n\nconstexpr const char* tokenizer_kinds_golden =\n" + body + ";\n\n}  // namespace collimate\n")
    print(len(text))
main(sys.argv[1])
