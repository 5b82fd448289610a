"""Gemma 4 and its drafters in PyTorch: the target (dense or with experts), the MTP assistant, the DFlash drafter.

Parameters have the names that Hugging Face's checkpoints have, so that a state_dict is a checkpoint, and a config is the
text part of such a config.json. Everything is written for whole sequences: a drafter guesses at every position at once,
with the masks that it has when it guesses at one. Shapes: N sequences, T positions, D width, H query heads, KV heads of
keys, hd width of a head. Residuals, norms and rotations are float32 whatever autocast does.
"""
import functools
from collections import namedtuple

import torch
import torch.nn.functional as F
from torch import nn

# What a pass of the target leaves. final [N, T, D]: after the last norm; hidden[i] [N, T, D]: after layer i, only for
# the layers asked for; kv[i] = keys, values [N, KV, T, hd] of layer i as its cache has them; balance: a loss.
Pass = namedtuple("Pass", "final hidden kv balance")


class Norm(nn.Module):
    """Root mean square norm with a plain weight; without one where weight=False. Gives float32."""

    def __init__(self, n, eps, init=1.0, weight=True):
        super().__init__()
        self.n, self.eps = n, eps
        self.weight = nn.Parameter(torch.full((n,), init)) if weight else None

    def forward(self, x):
        return F.rms_norm(x.float(), (self.n,), self.weight, self.eps)


def linear(n_in, n_out, scale=1.0):
    layer = nn.Linear(n_in, n_out, bias=False)
    nn.init.normal_(layer.weight, std=scale * n_in ** -0.5)
    return layer


# ==== Positions ====

def angles(pos, hd, base, turned=1.0):
    """cos, sin [..., hd/2] float32. Only the first `turned` share of the pairs (i, i + hd/2) turns."""
    i = torch.arange(hd // 2, device=pos.device, dtype=torch.float32)
    frequency = torch.where(i < int(turned * hd / 2), base ** (-2 * i / hd), torch.zeros_like(i))
    a = pos[..., None].float() * frequency
    return a.cos(), a.sin()


def rotate(x, turn):
    """x [N, heads, T, hd]; turn = cos, sin [T, hd/2] or [N, 1, T, hd/2]."""
    a, b = x.float().chunk(2, -1)
    cos, sin = turn
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def kind_angles(config, kind, pos):
    """Full layers turn a quarter of the pairs, with the exponent over the whole head (proportional RoPE)."""
    rope = config["rope_parameters"][kind]
    hd = head_dim(config, kind)
    return angles(pos, hd, rope["rope_theta"], rope.get("partial_rotary_factor", 1.0))


def head_dim(config, kind):
    return config["head_dim"] if kind == "sliding_attention" else config["global_head_dim"]


def kv_heads(config, kind):
    """num_global_key_value_heads counts only where full layers use their keys as values."""
    is_global = kind == "full_attention" and config["attention_k_eq_v"]
    return config["num_global_key_value_heads" if is_global else "num_key_value_heads"]


# ==== Attention ====

def split(x, heads):
    """[N, T, heads * hd] to [N, heads, T, hd]"""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join(x):
    return x.transpose(1, 2).flatten(2)


def spread(x, heads):
    """Keys or values [N, KV, T, hd] for as many query heads: query head j reads head j // (heads / KV)."""
    return x.repeat_interleave(heads // x.shape[1], 1)


@functools.lru_cache(maxsize=8)
def window_mask(chunks, size, window, heads, device):
    """[1, chunks * heads, size, 2 * size]: a row of a chunk against the chunk before and its own."""
    row = torch.arange(size, device=device)[:, None]
    key = torch.arange(-size, size, device=device)[None, :]
    mask = ((key <= row) & (row - key < window)).repeat(chunks, 1, 1)
    mask[0, :, :size] = False  # nothing stands before the first chunk
    return mask.repeat(heads, 1, 1)[None]


def attend_causal(q, k, v, window=None):
    """Row i sees rows j <= i, with i - j < window if there is one. Scores are not scaled.

    With a window, rows go in chunks of its size, which see themselves and the chunk before: time T * window.
    """
    heads, T = q.shape[1:3]
    k, v = spread(k, heads), spread(v, heads)
    if window is None or window >= T:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)
    size = -(-window // 8) * 8
    chunks = -(-T // size)
    rest = chunks * size - T
    q = F.pad(q, (0, 0, 0, rest)).unflatten(2, (chunks, size)).flatten(1, 2)
    k, v = (F.pad(x, (0, 0, size, rest)).unflatten(2, (chunks + 1, size)) for x in (k, v))
    k, v = (torch.cat([x[:, :, :-1], x[:, :, 1:]], 3).flatten(1, 2) for x in (k, v))
    mask = window_mask(chunks, size, window, heads, q.device)
    o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
    return o.unflatten(1, (heads, chunks)).flatten(2, 3)[:, :, :T]


class Attention(nn.Module):
    """Queries, keys and values of a Gemma 4 layer; without keys of its own for a layer of the assistant."""

    def __init__(self, config, kind, own_keys=True):
        super().__init__()
        D, eps = config["hidden_size"], config["rms_norm_eps"]
        self.H, self.KV, hd = config["num_attention_heads"], kv_heads(config, kind), head_dim(config, kind)
        self.window = config["sliding_window"] if kind == "sliding_attention" else None
        self.q_proj = linear(D, self.H * hd)
        self.o_proj = linear(self.H * hd, D)
        self.q_norm = Norm(hd, eps)
        self.v_proj = None
        if own_keys:
            self.k_proj = linear(D, self.KV * hd)
            self.k_norm = Norm(hd, eps, init=1.5 * hd ** -0.5)  # scores are not scaled: the norm's weight is the scale
            self.v_norm = Norm(hd, eps, weight=False)
            if kind == "sliding_attention" or not config["attention_k_eq_v"]:
                self.v_proj = linear(D, self.KV * hd)

    def queries(self, x, turn):
        return rotate(self.q_norm(split(self.q_proj(x), self.H)), turn)

    def keys_values(self, x, turn):
        k = split(self.k_proj(x), self.KV)
        v = split(self.v_proj(x), self.KV) if self.v_proj else k
        return rotate(self.k_norm(k), turn), self.v_norm(v)


# ==== Feed-forward ====

class Mlp(nn.Module):
    def __init__(self, D, width, act=functools.partial(F.gelu, approximate="tanh")):
        super().__init__()
        self.act = act
        self.gate_proj, self.up_proj = linear(D, width), linear(D, width)
        self.down_proj = linear(width, D)

    def forward(self, x):
        return self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))


class Router(nn.Module):
    """Chooses experts by the residual itself: a softmax over all, the best renormalised, then a scale each."""

    def __init__(self, config):
        super().__init__()
        D, E = config["hidden_size"], config["num_experts"]
        self.top = config["top_k_experts"]
        self.norm = Norm(D, config["rms_norm_eps"], weight=False)
        self.scale = nn.Parameter(torch.ones(D))
        self.per_expert_scale = nn.Parameter(torch.ones(E))
        self.proj = linear(D, E, scale=4.0)

    def forward(self, s):
        """s [rows, D] to the share of every expert [rows, E], zero for those not chosen, and a loss for balance."""
        with torch.autocast(s.device.type, enabled=False):
            p = self.proj(self.norm(s) * self.scale * s.shape[-1] ** -0.5).softmax(-1)
        best, chosen = p.topk(self.top, -1)
        share = torch.zeros_like(p).scatter(-1, chosen, best / best.sum(-1, keepdim=True))
        # Experts that get many rows are made less probable: E * sum of (share of rows) * (mean probability).
        balance = p.shape[-1] / self.top * ((share > 0).float().mean(0) * p.mean(0)).sum()
        return share * self.per_expert_scale, balance


class Experts(nn.Module):
    """All experts on all rows, those not chosen times 0: few large matmuls, which suits experts this small."""

    def __init__(self, config):
        super().__init__()
        D, E, width = config["hidden_size"], config["num_experts"], config["moe_intermediate_size"]
        self.gate_up_proj = nn.Parameter(torch.randn(E, 2 * width, D) * D ** -0.5)
        self.down_proj = nn.Parameter(torch.randn(E, D, width) * width ** -0.5)

    def forward(self, x, share):
        """x [rows, D], share [rows, E]"""
        E, width = self.gate_up_proj.shape[0], self.down_proj.shape[2]
        gate, up = F.linear(x, self.gate_up_proj.flatten(0, 1)).unflatten(-1, (E, 2, width)).unbind(2)
        act = F.gelu(gate, approximate="tanh") * up * share[..., None].to(up.dtype)
        return F.linear(act.flatten(1), self.down_proj.transpose(0, 1).flatten(1))


# ==== Layers of Gemma 4 ====

class Layer(nn.Module):
    """A layer of the target, or with own_keys=False one of the assistant, which reads the target's keys."""

    def __init__(self, config, kind, own_keys=True):
        super().__init__()
        D, eps = config["hidden_size"], config["rms_norm_eps"]
        branch = (2 * config["num_hidden_layers"]) ** -0.5  # all branches together weigh about as much as the embedding
        self.kind, self.dropout = kind, 0.0
        self.input_layernorm = Norm(D, eps)
        self.self_attn = Attention(config, kind, own_keys)
        self.post_attention_layernorm = Norm(D, eps, init=branch)
        self.pre_feedforward_layernorm = Norm(D, eps)
        self.mlp = Mlp(D, config["intermediate_size"])
        self.post_feedforward_layernorm = Norm(D, eps, init=branch)
        self.layer_scalar = nn.Parameter(torch.ones(1))
        self.router = None
        if config["enable_moe_block"]:
            self.router, self.experts = Router(config), Experts(config)
            self.pre_feedforward_layernorm_2 = Norm(D, eps)
            self.post_feedforward_layernorm_1 = Norm(D, eps)
            self.post_feedforward_layernorm_2 = Norm(D, eps)

    def feed_forward(self, s):
        dense = self.mlp(self.pre_feedforward_layernorm(s))
        if not self.router:
            return dense, 0.0
        rows = s.flatten(0, -2)
        share, balance = self.router(rows)
        chosen = self.experts(self.pre_feedforward_layernorm_2(rows), share).view_as(s)
        return self.post_feedforward_layernorm_1(dense) + self.post_feedforward_layernorm_2(chosen), balance

    def forward(self, h, turn, attend):
        """attend(layer's attention, normed input, turn) gives [N, H, T, hd]."""
        drop = functools.partial(F.dropout, p=self.dropout, training=self.training)
        a = self.self_attn.o_proj(join(attend(self.self_attn, self.input_layernorm(h), turn)))
        s = h + drop(self.post_attention_layernorm(a))
        f, balance = self.feed_forward(s)
        return (s + drop(self.post_feedforward_layernorm(f))) * self.layer_scalar, balance


def logits(y, table):
    """Not in bf16, which has too few digits to tell near choices apart."""
    with torch.autocast(y.device.type, enabled=False):
        return F.linear(y, table.weight)


class Body(nn.Module):
    def __init__(self, config, own_keys):
        super().__init__()
        self.embed_tokens = nn.Embedding(config["vocab_size"], config["hidden_size"])
        nn.init.normal_(self.embed_tokens.weight, std=0.5 * config["hidden_size"] ** -0.5)
        self.layers = nn.ModuleList(Layer(config, kind, own_keys) for kind in config["layer_types"])
        self.norm = Norm(config["hidden_size"], config["rms_norm_eps"])


class Target(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.model = Body(config, own_keys=True)

    def embed(self, tokens):
        return self.model.embed_tokens(tokens) * self.config["hidden_size"] ** 0.5

    def head(self, final):
        cap = self.config["final_logit_softcapping"]
        return cap * torch.tanh(logits(final, self.model.embed_tokens) / cap)

    def turns(self, pos):
        return {kind: kind_angles(self.config, kind, pos) for kind in set(self.config["layer_types"])}

    def donor(self, kind):
        """The last layer of a kind, whose keys the assistant's layers of that kind read."""
        return max(i for i, k in enumerate(self.config["layer_types"]) if k == kind)

    def forward(self, tokens, hidden_of=()):
        """A whole sequence [N, T] from position 0."""
        turns = self.turns(torch.arange(tokens.shape[1], device=tokens.device))
        donors = {self.donor(kind) for kind in turns}
        h, hidden, kv, balance = self.embed(tokens), {}, {}, 0.0
        for i, layer in enumerate(self.model.layers):
            def attend(a, x, turn):
                k, v = a.keys_values(x, turn)
                if i in donors:
                    kv[i] = k, v
                return attend_causal(a.queries(x, turn), k, v, a.window)
            h, b = layer(h, turns[layer.kind], attend)
            balance = balance + b
            if i in hidden_of:
                hidden[i] = h
        return Pass(self.model.norm(h), hidden, kv, balance)


# ==== MTP assistant ====

class Assistant(nn.Module):
    """Guesses tokens one by one. Its config has backbone_hidden_size, the target's width, beside text_config's keys."""

    def __init__(self, config):
        super().__init__()
        D, B = config["hidden_size"], config["backbone_hidden_size"]
        self.config = config
        self.model = Body(config, own_keys=False)
        self.pre_projection = linear(2 * B, D)
        self.post_projection = linear(D, B)

    def step(self, target, done, tokens, g, extra=0):
        """One guess at every position P = 1..T-1 of a pass `done` over T positions: the newest token stands at P.

        tokens [N, T-1]: the newest token, or the guess of the step before; g [N, T-1, B]: the target's final at P - 1,
        or what the step before gave. The position of queries is P in every step. Keys seen are those before P, on
        sliding layers the newest W - 1 (+ extra) of them. Gives logits [N, T-1, V], the next g, the hidden states.
        """
        T = tokens.shape[1] + 1
        pos = torch.arange(1, T, device=tokens.device)
        h = self.pre_projection(torch.cat([target.embed(tokens), g], -1)).float()
        hidden = []
        for layer in self.model.layers:
            k, v = (x[:, :, :T - 1] for x in done.kv[target.donor(layer.kind)])

            def attend(a, x, turn):  # row P - 1 of the queries sees keys up to row P - 1
                return attend_causal(a.queries(x, turn), k, v, a.window and a.window - 1 + extra)
            h, _ = layer(h, kind_angles(self.config, layer.kind, pos), attend)
            hidden.append(h)
        y = self.model.norm(h)
        return logits(y, self.model.embed_tokens), self.post_projection(y).float(), hidden


# ==== DFlash ====

class DFlashAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        D, eps, hd = config["hidden_size"], config["rms_norm_eps"], config["head_dim"]
        self.H, self.KV = config["num_attention_heads"], config["num_key_value_heads"]
        self.q_proj, self.o_proj = linear(D, self.H * hd), linear(self.H * hd, D, scale=0.5)
        self.k_proj, self.v_proj = linear(D, self.KV * hd), linear(D, self.KV * hd)
        self.q_norm, self.k_norm = Norm(hd, eps), Norm(hd, eps)

    def keys_values(self, x, turn):
        return rotate(self.k_norm(split(self.k_proj(x), self.KV)), turn), split(self.v_proj(x), self.KV)

    def forward(self, x, turn, context, mask):
        """x [N, rows, D] against context = keys, values and its own rows."""
        q = rotate(self.q_norm(split(self.q_proj(x), self.H)), turn)
        k, v = (spread(torch.cat([c.to(o.dtype), o], 2), self.H) for c, o in zip(context, self.keys_values(x, turn)))
        o = F.scaled_dot_product_attention(q, k, v.to(k.dtype), attn_mask=mask[:, None])  # scale 1 / sqrt(hd)
        return self.o_proj(join(o))


class DFlashLayer(nn.Module):
    """A layer of Qwen 3."""

    def __init__(self, config):
        super().__init__()
        D, eps = config["hidden_size"], config["rms_norm_eps"]
        self.input_layernorm, self.post_attention_layernorm = Norm(D, eps), Norm(D, eps)
        self.self_attn = DFlashAttention(config)
        self.mlp = Mlp(D, config["intermediate_size"], F.silu)

    def forward(self, h, turn, context, mask):
        s = h + self.self_attn(self.input_layernorm(h), turn, context, mask)
        return s + self.mlp(self.post_attention_layernorm(s))


class DFlash(nn.Module):
    """Fills in blocks of masked tokens, from what some layers of the target gave for the tokens before."""

    def __init__(self, config):
        super().__init__()
        D, eps = config["hidden_size"], config["rms_norm_eps"]
        self.config, self.taps = config, config["dflash_config"]["target_layer_ids"]
        self.fc = linear(len(self.taps) * D, D)
        self.hidden_norm, self.norm = Norm(D, eps), Norm(D, eps)
        self.layers = nn.ModuleList(DFlashLayer(config) for _ in config["layer_types"])

    def context(self, done):
        """What the block's layers see of every position of a target's pass: [N, T, D]."""
        return self.hidden_norm(self.fc(torch.cat([done.hidden[i] for i in self.taps], -1)))

    def masks(self, anchors, T):
        """anchors [N, A] to masks [N, A * B, T + A * B] by kind of layer. A block's rows see what is before its anchor,
        and of the rows of all blocks only their own: on full layers all, on sliding layers those up to themselves."""
        B, W = self.config["block_size"], self.config["sliding_window"]
        anchor = anchors.repeat_interleave(B, 1)[:, :, None]
        block, j = (x.flatten() for x in torch.meshgrid(torch.arange(anchors.shape[1], device=anchors.device),
                                                        torch.arange(B, device=anchors.device), indexing="ij"))
        pos = anchor + j[None, :, None]
        u = torch.arange(T, device=anchors.device)
        before = u < anchor
        own = (block[:, None] == block[None, :]).expand(len(anchors), -1, -1)
        back = j[:, None] - j[None, :]
        return {"full_attention": torch.cat([before, own], 2),
                "sliding_attention": torch.cat([before & (pos - u < W), own & (back >= 0) & (back < W)], 2)}

    def forward(self, target, context, tokens, anchors):
        """tokens [N, A, B]: each block's newest token, then masks; it begins at anchors [N, A]. Rows j > 0 guess the
        token of their own position. Gives logits [N, A, B, V] and hidden states [N, A * B, D], the last normed."""
        N, A, B = tokens.shape
        hd, base, T = self.config["head_dim"], self.config["rope_theta"], context.shape[1]
        there = angles(torch.arange(T, device=tokens.device), hd, base)
        pos = (anchors[:, :, None] + torch.arange(B, device=tokens.device)).flatten(1)
        here = tuple(x[:, None] for x in angles(pos, hd, base))
        masks = self.masks(anchors, T)
        scale = self.config.get("input_embedding_scale", 1.0)
        h, hidden = target.model.embed_tokens(tokens.flatten(1)) * scale, []
        for layer, kind in zip(self.layers, self.config["layer_types"]):
            h = layer(h, here, layer.self_attn.keys_values(context, there), masks[kind])
            hidden.append(h)
        hidden.append(self.norm(h))
        return target.head(hidden[-1]).unflatten(1, (A, B)), hidden
