#!/usr/bin/env python3
"""Trains a part of the family: train.py target|spans|mtp|dflash --kind dense|moe --data DATA --out OUT

target   next-token loss on DATA/train.npy; the weights with the best held-out loss are kept
spans    text of which the target writes parts itself, greedily or drawn: what the drafters learn from
mtp      the MTP assistant on the frozen target's states, in the chain of steps that it will be used in
dflash   the DFlash drafter on masked blocks behind random anchors, with the target's states before them

Training ends after --steps or --seconds, whichever is first; the learning rate falls with both. Log: OUT/NAME/log.json.
"""
import argparse
import copy
import json
import math
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F

import family
from generate import rewrite

BOS = 2
STEPS = {"target": 900, "mtp": 2000, "dflash": 3000}
RATE = {"target": 2e-3, "mtp": 2e-3, "dflash": 1.5e-3}
OFF_PATH = 0.2  # weight of a guess behind tokens that the target would not have chosen


def tokens_of(o, name):
    return torch.from_numpy(np.load(o.data / (name + ".npy")).astype(np.int64)).to(o.device)


def crops(tokens, n, length, generator=None):
    """n pieces of the text [n, length], each behind a <bos>."""
    start = torch.randint(0, len(tokens) - length, (n,), generator=generator).to(tokens.device)
    rows = tokens[start[:, None] + torch.arange(length, device=tokens.device)]
    rows[:, 0] = BOS
    return rows


def autocast(device):
    """bf16 matmuls on a GPU; norms, rotations, softmax and losses stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


class Training:
    """Optimizer, schedule and log of one model."""

    def __init__(self, o, model, name):
        self.o, self.model, self.name, self.start, self.log = o, model, name, time.time(), []
        self.steps = o.steps or STEPS[o.part]
        self.warm_up = min(50, self.steps // 10 + 1)
        matrices = [p for p in model.parameters() if p.ndim > 1]
        vectors = [p for p in model.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=o.device.type == "cuda")

    def fraction(self, step):
        return max(step / self.steps, (time.time() - self.start) / self.o.seconds)

    def rate(self, step):
        """Up over the first steps, then down along a cosine to a fiftieth."""
        cosine = (1 + math.cos(math.pi * self.fraction(step))) / 2
        return (self.o.rate or RATE[self.o.part]) * min(1, (step + 1) / self.warm_up) * (0.02 + 0.98 * cosine)

    def run(self, loss_of, observe=None):
        """loss_of(step) gives a loss and numbers for the log; observe() more numbers, ten times on the way."""
        step, shown = 0, -1
        while self.fraction(step) < 1:
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate(step)
            loss, numbers = loss_of(step)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            step += 1
            if int(10 * self.fraction(step)) > shown:
                shown = int(10 * self.fraction(step))
                self.show(step, {**numbers, **(observe() if observe else {})})
        return self.log

    def show(self, step, numbers):
        entry = {"step": step, "seconds": round(time.time() - self.start, 1)}
        entry.update({k: round(float(v), 4) for k, v in numbers.items()})
        self.log.append(entry)
        print(self.name, " ".join("%s %s" % kv for kv in entry.items()), flush=True)

    def save(self, config, extra):
        o = self.o
        to = family.folder(o.out, o.kind, o.part)
        family.save(self.model, config, to, o.data)
        extra.update(parameters=family.parameters(self.model), log=self.log, sequences=o.batch, length=o.length)
        (to / "log.json").write_text(json.dumps(extra, indent=1) + "\n")


# ==== The target ====

@torch.no_grad()
def held_out_loss(model, tokens, length, batch, most=24):
    """Mean over pieces of the held-out text that follow one another."""
    model.eval()
    n = min(most, len(tokens) // length)
    rows = tokens[:n * length].view(n, length).clone()
    rows[:, 0] = BOS
    total = 0.0
    for part in rows.split(batch):
        with autocast(tokens.device):
            logits = model.head(model(part[:, :-1]).final)
        total += F.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten(), reduction="sum").item()
    model.train()
    return total / (n * (length - 1))


def train_target(o):
    train, valid = tokens_of(o, "train"), tokens_of(o, "valid")
    config = family.target_config(o.size, o.kind, o.vocab)
    model = family.build(config).to(o.device).train()
    for layer in model.model.layers:
        layer.dropout = o.dropout
    t = Training(o, model, o.kind)
    best = {"loss": math.inf}

    def loss_of(_):
        rows = crops(train, o.batch, o.length + 1)
        with autocast(o.device):
            done = model(rows[:, :-1])
            loss = F.cross_entropy(model.head(done.final).flatten(0, 1), rows[:, 1:].flatten())
        return loss + 0.01 * done.balance, {"loss": loss.detach()}

    def observe():
        loss = held_out_loss(model, valid, min(o.length, len(valid) // 2), o.batch)
        if loss < best["loss"]:
            best.update(loss=loss, step=len(t.log), weights=copy.deepcopy(model.state_dict()))
        return {"held_out": loss}

    t.run(loss_of, observe)
    model.load_state_dict(best["weights"])
    t.save(config, {"held_out_loss": best["loss"], "train_tokens": len(train)})


# ==== Text that the target writes ====

def choose_spans(rows, length, generator):
    """[rows, length] bool: by turns 16..length/6 tokens of the text and 32..length/6 of the target's own."""
    chosen = torch.zeros(rows, length, dtype=torch.bool)
    for row in chosen:
        at = 0
        while at < length:
            at += int(torch.randint(16, max(17, length // 6), (1,), generator=generator))
            n = int(torch.randint(32, max(33, length // 6), (1,), generator=generator))
            row[at:at + n] = True
            at += n
    return chosen


def write_spans(o):
    """Half of the rows greedy, half drawn at temperatures up to 1."""
    generator = torch.Generator().manual_seed(o.seed)
    model = family.load(family.folder(o.out, o.kind, "target"), o.device)
    text = crops(tokens_of(o, "train"), o.rows, o.length, generator)
    chosen = choose_spans(o.rows, o.length, generator)
    temperature = torch.linspace(-1, 1, o.rows).clamp_min(0).to(o.device)
    start = time.time()
    with autocast(o.device):
        rows = rewrite(model, text, chosen.to(o.device), temperature, o.seed)
    np.save(family.folder(o.out, o.kind, "target") / "spans.npy", rows.cpu().numpy().astype(np.uint16))
    print("%s: %d of %d tokens written in %.1f s" % (o.kind, chosen.sum(), chosen.numel(), time.time() - start))


class Teacher:
    """Rows of text, partly the target's own, and what the frozen target makes of them."""

    def __init__(self, o):
        where = family.folder(o.out, o.kind, "target")
        self.o, self.target = o, family.load(where, o.device).requires_grad_(False)
        self.spans = torch.from_numpy(np.load(where / "spans.npy").astype(np.int64)).to(o.device)

    def batch(self, hidden_of=()):
        """tokens [N, T]; the pass; logits [N, T, V]; the target's choices [N, T] for position p + 1; and whether the
        token at p is what the target chose there."""
        rows = self.spans[torch.randint(len(self.spans), (self.o.batch,)).to(self.spans.device)]
        with torch.no_grad(), autocast(self.o.device):
            done = self.target(rows, hidden_of)
            logits = self.target.head(done.final)
        choice = logits.argmax(-1)
        on_path = F.pad(choice[:, :-1] == rows[:, 1:], (1, 0))
        return rows, done, logits, choice, on_path


def guess_loss(z, teacher, choice, weight):
    """Cross entropy of guesses z [.., V] against the target's distribution and its choice, half each; and how many
    of those with full weight are right."""
    logp = z.log_softmax(-1)
    soft = -(teacher.softmax(-1) * logp).sum(-1)
    hard = -logp.gather(-1, choice[..., None]).squeeze(-1)
    right = ((z.argmax(-1) == choice) & (weight >= 1)).sum() / (weight >= 1).sum().clamp_min(1)
    return ((soft + hard) / 2 * weight).sum() / weight.sum().clamp_min(1), right


# ==== Drafters ====

def train_mtp(o):
    teacher = Teacher(o)
    config = family.mtp_config(o.size, o.kind, o.vocab)
    model = family.build(config).to(o.device).train()
    t = Training(o, model, o.kind + "-mtp")

    def loss_of(_):
        rows, done, logits, choice, on_path = teacher.batch()
        T, total, numbers = rows.shape[1], 0.0, {}
        g, path = done.final[:, :-1], torch.ones_like(on_path[:, 1:])
        for k in range(o.chain):  # row P - 1: the newest token stands at P, step k reads the token at P + k
            ahead = torch.arange(1, T, device=rows.device) + k
            there, ahead = ahead < T, ahead.clamp_max(T - 1)
            if k:
                path = path & on_path[:, ahead]
            with autocast(o.device):
                z, g, _ = model.step(teacher.target, done, rows[:, ahead], g)
            weight = torch.where(path, 1.0, OFF_PATH) * there
            loss, numbers["right%d" % (k + 1)] = guess_loss(z, logits[:, ahead], choice[:, ahead], weight)
            total = total + loss / o.chain
        return total, {"loss": total.detach(), **numbers}

    t.run(loss_of)
    t.save(config, {"chain": o.chain})


def train_dflash(o):
    teacher = Teacher(o)
    config = family.dflash_config(o.size, o.kind, o.vocab)
    model = family.build(config).to(o.device).train()
    t = Training(o, model, o.kind + "-dflash")
    B = config["block_size"]
    ahead = torch.arange(B, device=o.device)
    decay = 0.85 ** (ahead[1:] - 1)  # a guess counts only if those before it are right

    def loss_of(_):
        rows, done, logits, choice, on_path = teacher.batch(model.taps)
        N, T = rows.shape
        anchors = torch.randint(1, T - B, (N, o.anchors), device=o.device)
        at = (anchors[:, :, None] + ahead).flatten(1)  # [N, A * B]
        tokens = torch.full((N, o.anchors, B), family.MASK, device=o.device)
        tokens[:, :, 0] = rows.gather(1, anchors)
        with autocast(o.device):
            z, _ = model(teacher.target, model.context(done), tokens, anchors)
        # Row j guesses position C + j, for which the target chooses at C + j - 1; it is on the path if the tokens
        # at C + 1 .. C + j - 1 are the target's choices.
        before = (at - 1).unflatten(1, (-1, B))[:, :, 1:]
        n = torch.arange(N, device=o.device)[:, None, None]
        path = F.pad(on_path[n, before[:, :, 1:]].long().cumprod(-1), (1, 0), value=1).bool()
        weight = torch.where(path, 1.0, OFF_PATH)
        loss, _ = guess_loss(z[:, :, 1:], logits[n, before], choice[n, before], weight * decay)
        right = ((z[:, :, 1:].argmax(-1) == choice[n, before]) & path).long().cumprod(-1).sum(-1).float().mean()
        return loss, {"loss": loss.detach(), "right_in_a_row": right}

    t.run(loss_of)
    t.save(config, {"block": B})


PARTS = {"target": train_target, "spans": write_spans, "mtp": train_mtp, "dflash": train_dflash}


def main(args=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("part", choices=PARTS)
    p.add_argument("--kind", choices=family.KINDS, required=True)
    p.add_argument("--data", type=pathlib.Path, required=True)
    p.add_argument("--out", type=pathlib.Path, required=True)
    p.add_argument("--size", choices=family.SIZES, default="small")
    p.add_argument("--seconds", type=float, default=math.inf, help="most seconds to train")
    p.add_argument("--steps", type=int, default=0, help="most steps; 0: a number that suits the part")
    p.add_argument("--rate", type=float, default=0.0, help="highest learning rate; 0: one that suits the part")
    p.add_argument("--batch", type=int, default=8, help="sequences a step")
    p.add_argument("--length", type=int, default=2304, help="tokens of a sequence")
    p.add_argument("--dropout", type=float, default=0.15, help="of the target's branches")
    p.add_argument("--rows", type=int, default=768, help="sequences that the target writes parts of")
    p.add_argument("--chain", type=int, default=4, help="steps of the MTP assistant that are trained")
    p.add_argument("--anchors", type=int, default=256, help="blocks of a sequence for DFlash")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--device", type=torch.device, default=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    p.add_argument("--threads", type=int, default=0, help="on the CPU; 0: as torch chooses")
    o = p.parse_args(args)
    if o.threads:
        torch.set_num_threads(o.threads)
    torch.manual_seed(o.seed)
    torch.set_float32_matmul_precision("high")
    tokenizer = json.loads((o.data / "tokenizer.json").read_text())
    o.vocab = -(-len(tokenizer["model"]["vocab"]) // 32) * 32
    PARTS[o.part](o)


if __name__ == "__main__":
    main()
