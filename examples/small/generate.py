"""Decoding with the PyTorch target, one token of many sequences at a time, all at the same position."""
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from model import head_dim


class Decoder:
    """N sequences with caches for `most` positions."""

    def __init__(self, target, N, most, dtype):
        self.target, self.pos = target, 0
        device = target.model.norm.weight.device
        self.turns = target.turns(torch.arange(most, device=device))
        shapes = [(N, l.self_attn.KV, most, head_dim(target.config, l.kind)) for l in target.model.layers]
        self.caches = [torch.zeros(2, *s, dtype=dtype, device=device) for s in shapes]

    def attend(self, a, cache, x, turn):
        p = self.pos
        k, v = a.keys_values(x, turn)
        cache[0, :, :, p], cache[1, :, :, p] = k[:, :, 0], v[:, :, 0]
        first = max(0, p - a.window + 1) if a.window else 0
        k, v = cache[:, :, :, first:p + 1]
        q = a.queries(x, turn).to(k.dtype).reshape(len(x), a.KV, a.H // a.KV, -1)  # those of one key head are its rows
        return F.scaled_dot_product_attention(q, k, v, scale=1.0).reshape(len(x), a.H, 1, -1)

    def step(self, tokens):
        """tokens [N] at the next position, to logits [N, V]."""
        h = self.target.embed(tokens[:, None])
        for layer, cache in zip(self.target.model.layers, self.caches):
            turn = tuple(t[self.pos:self.pos + 1] for t in self.turns[layer.kind])
            h, _ = layer(h, turn, lambda a, x, turn, cache=cache: self.attend(a, cache, x, turn))
        self.pos += 1
        return self.target.head(self.target.model.norm(h))[:, 0]


@torch.no_grad()
def rewrite(target, text, chosen, temperature, seed=0):
    """text [N, T] with the target's choice wherever chosen [N, T] says so, behind whatever stands before.

    temperature [N] or 0; a draw at temperature t is the greatest logit + t * Gumbel noise.
    """
    # cuDNN's attention, which torch may prefer, makes a plan for each length, and here each step has another.
    backends = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    dtype = torch.bfloat16 if text.is_cuda else torch.float32
    noise = torch.Generator(text.device).manual_seed(seed)
    rows, decoder = text.clone(), Decoder(target, *text.shape, dtype)
    temperature = torch.as_tensor(temperature, device=text.device).expand(len(text))[:, None]
    drawn = bool((temperature > 0).any())
    for t in range(text.shape[1] - 1):
        with sdpa_kernel(backends):
            logits = decoder.step(rows[:, t])
        if drawn:
            u = torch.rand(logits.shape, generator=noise, device=text.device).clamp_min(1e-20)
            logits = logits - temperature * (-u.log()).log()
        rows[:, t + 1] = torch.where(chosen[:, t + 1], logits.argmax(-1), text[:, t + 1])
    return rows
