"""The workloads of perf/step.cpp in PyTorch, for a comparison on the same machine: needs torch and nothing else.

usage: peer_torch.py train gpt2|small [rounds]      peer_torch.py generate gpt2|small BATCH [rounds]
OMP_NUM_THREADS sets the threads. Prints "name value" lines: medians over the rounds, after one round to warm up.
"""
import os
import statistics
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

PROMPT, NEW = 32, 96
MODELS = {  # layers, width, heads, vocabulary, context; batch, length; rounds
    "gpt2": (12, 768, 12, 50257, 1024, 4, 256, 3),
    "small": (4, 128, 4, 512, 256, 32, 128, 20),
}


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, cache, position):
        b, t, c = x.shape
        q, k, v = (y.view(b, t, self.heads, c // self.heads).transpose(1, 2) for y in self.qkv(self.norm1(x)).split(c, 2))
        if cache is not None:
            keys, values = cache
            keys[:, :, position:position + t], values[:, :, position:position + t] = k, v
            k, v = keys[:, :, :position + t], values[:, :, :position + t]
        y = F.scaled_dot_product_attention(q, k, v, is_causal=t > 1)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, c))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self, layers, width, heads, vocabulary, context):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, 0, 0.02)

    def forward(self, ids, caches=None, position=0):
        x = self.tokens(ids) + self.positions.weight[position:position + ids.shape[1]]
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i], position)
        if caches is not None:
            x = x[:, -1:]
        return self.norm(x) @ self.tokens.weight.t()


def train(name, rounds):
    layers, width, heads, vocabulary, context, batch, length, usual = MODELS[name]
    model = Gpt(layers, width, heads, vocabulary, context)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    ids = torch.randint(0, vocabulary, (batch, length + 1))
    steps = []
    for _ in range((rounds or usual) + 1):
        start = time.perf_counter()
        loss = F.cross_entropy(model(ids[:, :-1]).view(-1, vocabulary), ids[:, 1:].reshape(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        steps.append(time.perf_counter() - start)
    step = statistics.median(steps[1:])
    print(f"train.{name}.tokens_per_second {batch * length / step:.6g}")
    print(f"train.{name}.step_ms {step * 1e3:.6g}")


@torch.inference_mode()
def generate(name, batch, rounds):
    layers, width, heads, vocabulary, context, _, _, usual = MODELS[name]
    model = Gpt(layers, width, heads, vocabulary, context).eval()
    ids = torch.randint(0, vocabulary, (batch, PROMPT))
    rates = []
    for _ in range((rounds or usual) + 1):
        caches = [torch.zeros(2, batch, heads, PROMPT + NEW, width // heads) for _ in range(layers)]
        start = time.perf_counter()
        logits = model(ids, caches)
        for i in range(NEW):
            token = torch.multinomial(torch.softmax(logits[:, -1], -1), 1)
            if i + 1 < NEW:
                logits = model(token, caches, PROMPT + i)
        rates.append(batch * NEW / (time.perf_counter() - start))
    print(f"generate.{name}.{batch}.tokens_per_second {statistics.median(rates[1:]):.6g}")


def main(arguments):
    number = lambda i: int(arguments[i]) if i < len(arguments) else 0
    torch.manual_seed(0)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or os.cpu_count())
    if len(arguments) >= 2 and arguments[0] == "train" and arguments[1] in MODELS:
        train(arguments[1], number(2))
    elif len(arguments) >= 3 and arguments[0] == "generate" and arguments[1] in MODELS:
        generate(arguments[1], number(2), number(3))
    elif arguments == ["version"]:
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, MKL {torch.backends.mkl.is_available()}, "
              f"oneDNN {torch.backends.mkldnn.is_available()}, {torch.backends.cpu.get_cpu_capability()}")
    else:
        sys.exit(__doc__)


main(sys.argv[1:])
