"""Tokenizers of every kind of pipeline that a tokenizer.json may have, trained here, and mixed strings.
   tokenizer_kinds.py PROGRAM FOLDER [STRINGS]   saves each, and compares the program token_ids with the tokenizers package, id by id.
Characters that one of the Unicode versions lacks may differ (src/data/tokenizers.md): strings of random code points, at most 1 in 100."""
import json, os, random, subprocess, sys
from tokenizers import (AddedToken, Regex, Tokenizer, decoders as D, models as M, normalizers as N, pre_tokenizers as P, processors as R, trainers as T)

SCRIPTS = ["Ελληνικά γλώσσα", "русский язык", "العربية اللغة", "עברית שפה", "हिन्दी भाषा", "বাংলা ভাষা", "தமிழ் மொழி", "తెలుగు భాష", "ಕನ್ನಡ ಭಾಷೆ", "മലയാളം ഭാഷ",
           "ไทย ภาษา", "ລາວ ພາສາ", "မြန်မာ ဘာသာ", "ខ្មែរ ភាសា", "中文漢字", "日本語かなカナ", "한국어 한글", "ქართული ენა", "հայերեն լեզու", "አማርኛ ቋንቋ",
           "བོད་སྐད", "ᓄᓇᕗᑦ", "ⴰⵎⴰⵣⵉⵖ", "ᏣᎳᎩ"]
PROSE = ["The quick brown fox jumps over the lazy dog.", "It's what they've said: we'll go, I'm sure you'd agree.", "DON'T SHOUT, IT'S RUDE!", "In 2023, 12,345 people (3.14%) paid $1,000.50.",
         "Naïve café déjà vu – “quoted” … ½ kg ² x³", "def f(x):\n    return x**2  # square\n\n\tif (a&&b) { c[i]++; }", "https://example.org/a_b?c=d&e=f#g", "a\tb\r\nc\n\n\nd", "  two  blanks   three    four",
         "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "<s>[INST] Say hi. [/INST] Hi! </s>", "emoji 😀👍🏽👨‍👩‍👧 🇩🇪", "Ǆ ǅ ß ſ İ ı ﬁ ﬀ Å Å Ω", "e\u0301 a\u0308\u0323 \u1100\u1161\u11a8 각", "x" * 60, "ab" * 50, "...!!!???---", "snake_case camelCase HTTPServer2"]
EXTRA = [" ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u3000", "\u2009", "\u200b", "\u2028", "\u0085", "\ufeff", "\u00ad", "'s", "'LL", "’s", "'ſ", "1", "12", "1234567", "٣٤", "²", "Ⅷ", "①", "ⓐ", "_", "‿", "▁", "▁▁", "\u0301", "\u0338", "\u200d", "\ufe0f", "\u0000", "\u0001", "\u007f", "\u009f", "\ufffd",
         "Ġ", "<0x41>", "##a", "[", "]", "{", "}", "$", "+", "<", "^", "`", "|", "~", "。", "、", "！", "「", "«", "㍿", "㎏", "Ａｂｃ", "ｱｲｳ", "ｶﾞ", "ﷺ", "…", "½", "ﬃ", "𝒜𝔅", "🄰", "\U0001f468", "\u0e33", "\u0fb2\u0f81"]

def strings(n, seed=0):
    r = random.Random(seed)
    out = ["", " ", "a", " a", "a ", "\n"] + PROSE + SCRIPTS + EXTRA
    pool = PROSE + SCRIPTS + EXTRA * 2
    while len(out) < n:
        k = r.random()
        if k < 0.45: s = "".join(r.choice(pool) + r.choice(["", " ", "  ", "\n", ""]) for _ in range(r.randint(1, 6)))
        elif k < 0.6: s = "".join(r.choice(EXTRA) for _ in range(r.randint(1, 12)))
        elif k < 0.75: s = "".join(chr(c) for c in (r.choice([r.randint(1, 0x2ff), r.randint(0x300, 0x2fff), r.randint(0x3000, 0xd7ff), r.randint(0xe000, 0xffff), r.randint(0x10000, 0x1ffff), r.randint(0x20000, 0x10ffff)]) for _ in range(r.randint(1, 10))))
        elif k < 0.9: s = "".join(r.choice("abcdefghij ABC 0123 .,'\n") for _ in range(r.randint(1, 60)))
        elif k < 0.99: s = r.choice(PROSE)[: r.randint(1, 30)] + r.choice(EXTRA) + r.choice(SCRIPTS)[: r.randint(1, 9)]
        else: s = r.choice(["a", " ", "ab ", "é", "漢", "1", "!", "\n", "The cat. "]) * r.randint(500, 3000)
        out.append(s)
    return out[:n]

CORPUS = (PROSE + SCRIPTS) * 8 + ["hello world hello there the cat sat on the mat and the dog ran"] * 20

QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
O200K = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
HAN = r"[\p{L}&&[^\p{Han}]]+|\p{Han}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"

def split(pattern, behavior="isolated", invert=False): return P.Split(pattern if isinstance(pattern, str) else Regex(pattern[0]), behavior, invert)
def bl(prefix=False, regex=True): return P.ByteLevel(add_prefix_space=prefix, use_regex=regex)

def byte_bpe(normalizer, pre, vocab=700, special=("<|endoftext|>",), ignore=False, added=()):
    t = Tokenizer(M.BPE(ignore_merges=ignore))
    if normalizer is not None: t.normalizer = normalizer
    t.pre_tokenizer = pre
    t.decoder = D.ByteLevel()
    t.train_from_iterator(CORPUS, T.BpeTrainer(vocab_size=vocab, special_tokens=list(special), initial_alphabet=P.ByteLevel.alphabet(), show_progress=False))
    if added: t.add_tokens(list(added))
    return t

def spm_bpe(normalizer, pre, decoder, vocab=900, fuse=True, fallback=True):
    specials = ["<unk>", "<s>", "</s>"] + ([f"<0x{b:02X}>" for b in range(256)] if fallback else [])
    t = Tokenizer(M.BPE(unk_token="<unk>", fuse_unk=fuse, byte_fallback=fallback))
    if normalizer is not None: t.normalizer = normalizer
    if pre is not None: t.pre_tokenizer = pre
    t.decoder = decoder
    t.train_from_iterator([s for s in CORPUS if s.isascii()], T.BpeTrainer(vocab_size=vocab, special_tokens=specials, show_progress=False))
    j = json.loads(t.to_str())
    j["added_tokens"] = [a for a in j["added_tokens"] if not a["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(j))

def unigram(normalizer, pre, decoder, fallback=False, vocab=400, special=("<unk>", "<s>", "</s>")):
    t = Tokenizer(M.Unigram())
    if normalizer is not None: t.normalizer = normalizer
    if pre is not None: t.pre_tokenizer = pre
    t.decoder = decoder
    t.train_from_iterator(CORPUS, T.UnigramTrainer(vocab_size=vocab, special_tokens=list(special), unk_token="<unk>", show_progress=False))
    if fallback:
        j = json.loads(t.to_str())
        j["model"]["vocab"] += [[f"<0x{b:02X}>", -20.0] for b in range(256)]
        j["model"]["byte_fallback"] = True
        t = Tokenizer.from_str(json.dumps(j))
    return t

LLAMA_NORM = lambda: N.Sequence([N.Prepend("▁"), N.Replace(" ", "▁")])
LLAMA_DEC = lambda: D.Sequence([D.Replace("▁", " "), D.ByteFallback(), D.Fuse(), D.Strip(" ", 1, 0)])

def charsmap():
    """nmt_nfkc's table, as SentencePiece's trainer writes it into every model."""
    import sentencepiece as spm, tempfile, base64
    from sentencepiece import sentencepiece_model_pb2 as pb
    d = tempfile.mkdtemp()
    open(d + "/t", "w").write("\n".join(s.replace("\n", " ") for s in CORPUS))
    spm.SentencePieceTrainer.Train(input=d + "/t", model_prefix=d + "/m", vocab_size=300, hard_vocab_limit=False, normalization_rule_name="nmt_nfkc", minloglevel=2)
    m = pb.ModelProto(); m.ParseFromString(open(d + "/m.model", "rb").read())
    return m.normalizer_spec.precompiled_charsmap

def with_tokens(t, tokens, special=False):
    (t.add_special_tokens if special else t.add_tokens)(tokens)
    return t

def kinds():
    yield "gpt2", byte_bpe(None, bl())
    yield "roberta_prefix", byte_bpe(None, bl(prefix=True))
    yield "neox_nfc", byte_bpe(N.NFC(), bl(), added=[AddedToken(" " * k, normalized=True) for k in (2, 4, 8)] + [AddedToken("\t\t", normalized=True)])
    yield "qwen2", byte_bpe(N.NFC(), P.Sequence([split((QWEN,)), bl(regex=False)]), special=("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    yield "llama3", byte_bpe(None, P.Sequence([split((LLAMA3,)), bl(regex=False)]), ignore=True, special=("<s>", "</s>", "[INST]"))
    yield "o200k", byte_bpe(None, P.Sequence([split((O200K,)), bl(regex=False)]))
    yield "cl100k_removed", byte_bpe(None, P.Sequence([split((LLAMA3,), "removed", True), bl(regex=False)]))
    yield "deepseek_empty", byte_bpe(N.Sequence([]), P.Sequence([split(("[\r\n]",)), split(("\\s?\\p{L}+",)), split(("\\s?\\p{P}+",)), split(("[一-龥ࠀ-一가-퟿]+",)), P.Digits(True), bl()]))
    yield "deepseek3", byte_bpe(N.Sequence([]), P.Sequence([split((r"\p{N}{1,3}",)), split((r"[一-龥぀-ゟ゠-ヿ]+",)), split((r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",)), bl(regex=False)]))
    yield "bloom", byte_bpe(None, P.Sequence([split((BLOOM,)), bl(regex=False)]))
    yield "han", byte_bpe(None, P.Sequence([split((HAN,)), bl(regex=False)]))
    yield "starcoder_digits", byte_bpe(None, P.Sequence([P.Digits(True), bl()]))
    yield "digits_runs_punct", byte_bpe(N.NFD(), P.Sequence([P.Digits(False), P.Punctuation("isolated"), bl()]))
    yield "falcon", byte_bpe(None, P.Sequence([P.Punctuation("contiguous"), bl(), P.Digits(False), split(("[0-9][0-9][0-9]",))]))
    yield "punct_removed_next", byte_bpe(None, P.Sequence([P.Punctuation("merged_with_next"), P.Punctuation("removed"), P.Split(Regex(r"\s"), "merged_with_next", True), bl()]))
    yield "yi", spm_bpe(N.Sequence([N.Replace(" ", "▁"), N.Strip(left=False, right=True)]), None, D.Sequence([D.Replace("▁", " "), D.ByteFallback(), D.Fuse()]))
    yield "legacy_plain_added", with_tokens(spm_bpe(LLAMA_NORM(), None, LLAMA_DEC()), [AddedToken("cat", normalized=True), AddedToken("[INST]", normalized=True, rstrip=True), AddedToken("user", normalized=True, single_word=True, lstrip=True)])
    yield "whitespacesplit_punct", byte_bpe(N.NFKC(), P.Sequence([P.WhitespaceSplit(), P.Punctuation("merged_with_previous"), bl(prefix=True)]))
    yield "whitespace", byte_bpe(N.NFKD(), P.Sequence([P.Whitespace(), bl(regex=False)]))
    yield "lower_strip", byte_bpe(N.Sequence([N.NFD(), N.Lowercase(), N.StripAccents(), N.Strip()]), bl())
    yield "replace_regex", byte_bpe(N.Sequence([N.Replace(Regex(r"\s+"), " "), N.Replace("a", "bb"), N.Replace(".", "!")]), bl())
    for b in ("isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous"):
        for inv in (False, True):
            yield f"split_{b}_{int(inv)}", byte_bpe(None, P.Sequence([split((r"[aeiou ]+|\p{P}",), b, inv), bl(regex=False)]), vocab=330)
    yield "split_string", byte_bpe(None, P.Sequence([split(".", "merged_with_next"), split(" ", "merged_with_previous"), bl(regex=False)]))
    yield "split_empty_matches", byte_bpe(None, P.Sequence([split(("b*",)), split((r"(?=[A-Z])",)), bl(regex=False)]))
    yield "bert_pre", byte_bpe(N.BertNormalizer(), P.Sequence([P.BertPreTokenizer(), bl(regex=False)]))
    yield "bert_norm2", byte_bpe(N.BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=None, lowercase=False), P.Sequence([P.FixedLength(3), bl(regex=False)]))
    yield "nmt", byte_bpe(N.Nmt(), P.Sequence([P.CharDelimiterSplit("a"), bl(regex=False)]))
    yield "byte_normalizer", byte_bpe(N.ByteLevel(), P.Whitespace())
    yield "added_blanks", with_tokens(byte_bpe(N.Lowercase(), bl()), [AddedToken("The", normalized=True), AddedToken("fox", single_word=True, normalized=False), AddedToken("[INST]", lstrip=True, rstrip=True, normalized=False), AddedToken("DOG", single_word=True, normalized=True), AddedToken("a", single_word=True, normalized=False)])
    yield "added_special_normalized", with_tokens(byte_bpe(N.NFKC(), bl()), [AddedToken("<|im_end|>", normalized=True, special=True), AddedToken("<s>", normalized=False, special=True, lstrip=True)], True)
    yield "llama2_legacy", spm_bpe(LLAMA_NORM(), None, LLAMA_DEC())
    yield "llama2_nofuse", spm_bpe(LLAMA_NORM(), None, LLAMA_DEC(), fuse=False)
    yield "llama2_unk", spm_bpe(LLAMA_NORM(), None, LLAMA_DEC(), fallback=False)
    yield "llama2_unk_nofuse", spm_bpe(LLAMA_NORM(), None, LLAMA_DEC(), fallback=False, fuse=False)
    yield "llama2_new_first", spm_bpe(None, P.Metaspace("▁", "first", False), LLAMA_DEC())
    yield "metaspace_always_split", spm_bpe(None, P.Metaspace("▁", "always", True), D.Metaspace("▁", "always", True))
    yield "metaspace_never", spm_bpe(N.NFKC(), P.Metaspace("▁", "never", False), D.Sequence([D.ByteFallback(), D.Metaspace("▁", "never", False)]))
    yield "gemma", spm_bpe(N.Replace(" ", "▁"), P.Split(" ", "merged_with_previous"), D.Sequence([D.Replace("▁", " "), D.ByteFallback(), D.Fuse()]))
    j = json.loads(spm_bpe(LLAMA_NORM(), None, LLAMA_DEC()).to_str())
    for a in j["added_tokens"]: a["normalized"] = True
    yield "llama2_normalized_specials", Tokenizer.from_str(json.dumps(j))
    yield "unigram_metaspace", unigram(None, P.Metaspace("▁", "always", True), D.Metaspace("▁", "always", True))
    yield "unigram_fallback", unigram(None, P.Metaspace("▁", "first", False), D.Sequence([D.ByteFallback(), D.Metaspace("▁", "first", False)]), fallback=True)
    cm = charsmap()
    yield "t5_precompiled", unigram(N.Precompiled(cm), P.Sequence([P.WhitespaceSplit(), P.Metaspace("▁", "always", True)]), D.Metaspace("▁", "always", True))
    yield "xlmr_precompiled", unigram(N.Sequence([N.Precompiled(cm), N.Replace(Regex(" {2,}"), " ")]), P.Metaspace("▁", "always", True), D.Metaspace("▁", "always", True))
    yield "albert", unigram(N.Sequence([N.Replace("``", '"'), N.Replace("''", '"'), N.NFKD(), N.StripAccents(), N.Lowercase(), N.Precompiled(cm)]), P.Sequence([P.WhitespaceSplit(), P.Metaspace("▁", "always", True)]), D.Metaspace("▁", "always", True))
    t = Tokenizer(M.BPE(unk_token="<unk>", end_of_word_suffix="</w>")); t.normalizer = N.Lowercase(); t.pre_tokenizer = P.Whitespace(); t.decoder = D.BPEDecoder("</w>")
    t.train_from_iterator(CORPUS, T.BpeTrainer(vocab_size=500, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False)); yield "end_of_word", t
    t = Tokenizer(M.BPE(unk_token="<unk>", continuing_subword_prefix="##")); t.pre_tokenizer = P.BertPreTokenizer(); t.decoder = D.WordPiece("##", False)
    t.train_from_iterator(CORPUS, T.BpeTrainer(vocab_size=700, special_tokens=["<unk>"], continuing_subword_prefix="##", show_progress=False)); yield "subword_prefix", t
    t = Tokenizer(M.WordPiece(unk_token="[UNK]")); t.normalizer = N.BertNormalizer(); t.pre_tokenizer = P.BertPreTokenizer(); t.decoder = D.WordPiece("##", True)
    t.train_from_iterator(CORPUS, T.WordPieceTrainer(vocab_size=500, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False)); yield "wordpiece", t
    t = Tokenizer(M.WordLevel(unk_token="<unk>")); t.pre_tokenizer = P.Sequence([P.Whitespace(), P.Digits(True)])
    t.train_from_iterator(CORPUS, T.WordLevelTrainer(vocab_size=300, special_tokens=["<unk>"], show_progress=False)); yield "wordlevel", t

def compare(program, folder, texts):
    """Prints a line for each kind; the number of strings that differ and may not."""
    with open(f"{folder}/texts.jsonl", "w") as f: f.writelines(json.dumps(s) + "\n" for s in texts)
    wrong = 0
    for name, t in kinds():
        os.makedirs(f"{folder}/{name}", exist_ok=True)
        t.save(f"{folder}/{name}/tokenizer.json")
        p = subprocess.run([program, f"{folder}/{name}/tokenizer.json", f"{folder}/texts.jsonl"], capture_output=True)
        lines = p.stdout.decode("utf8", "replace").split("\n")[:-1]
        assert p.returncode == 0 and len(lines) == len(texts), (name, lines[-1:], p.stderr[-300:])
        differ, undone = [], []
        for s, line in zip(texts, lines):
            got, want = json.loads(line), t.encode(s, add_special_tokens=False).ids
            if got["ids"] != want: differ.append((s, want, got["ids"]))
            elif t.decode(want, skip_special_tokens=False) == s != got["text"]: undone.append((s, got["text"]))
        plain = [d for d in differ if not set(d[0]) - KNOWN]
        print(f"{name}: {len(differ)} of {len(texts)} differ, {len(plain)} of them without rare characters; {len(undone)} come back otherwise")
        for d in (plain or differ)[:2] + undone[:2]: print("   ", *map(repr, d))
        wrong += len(plain) + (len(differ) if len(differ) > len(texts) // 100 else 0)
    return wrong

KNOWN = set("".join(PROSE + SCRIPTS + EXTRA)) | set(map(chr, range(0x300)))

if __name__ == "__main__":
    program, folder = sys.argv[1:3]
    sys.exit(compare(program, folder, strings(int(sys.argv[3]) if len(sys.argv) > 3 else 1000)) > 0)
