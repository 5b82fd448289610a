#!/usr/bin/env python3
"""The models of examples/small are the models of the engine: definitions_test.py FIXTURES

Loads the weights of the golden models into the PyTorch definitions and compares with what the reference recorded:
logits and hidden states of the dense target and the one with experts, three chained steps of the MTP assistant, and
context, layers and logits of the DFlash drafter in both rounds. Without torch it is skipped (exit code 77).
"""
import json
import os
import sys

try:
    import numpy as np
    import torch
    from safetensors.torch import load_file
except ImportError as e:
    print("skipped: %s" % e)
    sys.exit(77)

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "..", "examples", "small"), os.path.join(HERE, "..", "convert")]
import checkpoint
import model

BOUND = 1e-4


class Golden:
    def __init__(self, root, kind):
        self.folder = os.path.join(root, kind)
        with open(self.file("golden.json")) as f:
            self.json = json.load(f)
        self.worst = 0.0

    def file(self, name):
        return os.path.join(self.folder, name)

    def array(self, name):
        return torch.from_numpy(np.fromfile(self.file(name), "<f4").reshape(self.json["files"][name]["shape"]))

    def weights(self, kind):
        """By the checkpoint's names, float32."""
        g = checkpoint.Gguf(self.file("model.gguf"))
        out = {}
        for name, (stored, shape, data) in g.tensors.items():
            to = checkpoint.hf_name(name, kind, "model.")
            if to:
                wide = checkpoint.f32_of_bf16(data) if stored == 30 else data
                out[to] = torch.from_numpy(np.frombuffer(wide, "<f4").reshape(shape).copy())
        return out

    def compare(self, what, got, want):
        rms = ((got - want).pow(2).mean() / want.pow(2).mean()).sqrt().item()
        self.worst = max(self.worst, rms)
        if not rms <= BOUND:
            sys.exit("FAILED: %s: %s: relative rms %.2g" % (self.folder, what, rms))


def config_of(golden):
    c = dict(golden.json["config"])
    c["rope_parameters"] = checkpoint.rope(c)
    return c


def load(net, weights):
    net.load_state_dict(weights)
    return net.eval()


def check_target(root, kind):
    g = Golden(root, kind)
    target = load(model.Target(config_of(g)), g.weights("target"))
    tokens = torch.tensor([g.json["prompt_tokens"]])
    layers = range(g.json["config"]["num_hidden_layers"])
    done = target(tokens, hidden_of=layers)
    hidden = torch.stack([target.embed(tokens)] + [done.hidden[i] for i in layers])[:, 0][:, [0, -1]]
    g.compare("hidden", hidden, g.array("hidden_first_last.f32"))
    g.compare("final", done.final[0], g.array("final_norm.f32"))
    g.compare("logits", target.head(done.final)[0], g.array("logits.f32"))
    return g, target


def check_greedy(g, target):
    """By the cached decoder: prompt and greedy tokens, one by one."""
    import generate
    prompt, greedy = g.json["prompt_tokens"], g.json["greedy_tokens"]
    decoder = generate.Decoder(target, 1, len(prompt) + len(greedy), torch.float32)
    rows = [decoder.step(torch.tensor([t]))[0] for t in prompt + greedy[:-1]]
    logits = torch.stack(rows[len(prompt) - 1:])
    g.compare("greedy logits", logits, g.array("greedy_logits.f32"))
    assert logits.argmax(-1).tolist() == greedy


def check_assistant(root, target, done):
    """Guesses at the position behind the prompt: the last of a pass over it and one token more."""
    g = Golden(root, "assistant_dense")
    assistant = load(model.Assistant(config_of(g)), g.weights("assistant"))
    for variant, extra in (("window", 0), ("stock", 2)):
        for n, step in enumerate(g.json["steps"][variant]):
            T = done.final.shape[1]
            tokens = torch.full((1, T - 1), step["token_in"])
            g_in = g.array(variant + "_g_in.f32")[n].expand(1, T - 1, -1)
            logits, g_out, hidden = assistant.step(target, done, tokens, g_in, extra)
            g.compare("%s logits" % variant, logits[0, -1], g.array(variant + "_logits.f32")[n])
            g.compare("%s g" % variant, g_out[0, -1], g.array(variant + "_g_out.f32")[n])
            layers = torch.stack([h[0, -1] for h in hidden])
            g.compare("%s layers" % variant, layers, g.array(variant + "_layers.f32")[n])
    return g


def check_dflash(root, target):
    g = Golden(root, "dflash")
    with open(g.file("config.json")) as f:
        config = json.load(f)
    for scale, variant in ((1.0, "mixed_raw"), (config["hidden_size"] ** 0.5, "mixed_scaled")):
        drafter = load(model.DFlash(dict(config, input_embedding_scale=scale)),
                       {k: v.float() for k, v in load_file(g.file("model.safetensors")).items()})
        taps = drafter.taps
        done = target(torch.tensor([g.json["sequence"]]), hidden_of=taps)
        seen = g.json["rounds"][-1]["block_positions"][0]  # the last anchor was not read
        features = torch.cat([done.hidden[i] for i in taps], -1)
        g.compare("features", features[0, :seen], g.array("features.f32"))
        context = drafter.context(done)
        g.compare("context", context[0, :seen], g.array("context.f32"))
        # Both rounds at once: neither sees the other's block, nor context behind its own anchor.
        anchors = torch.tensor([[r["block_positions"][0] for r in g.json["rounds"]]])
        tokens = torch.tensor([[r["block_tokens"] for r in g.json["rounds"]]])
        _, hidden = drafter(target, context, tokens, anchors)
        shape = (2, config["block_size"], -1)
        layers = torch.stack([h[0].view(shape) for h in hidden[:-1]], 1)
        g.compare(variant + " layers", layers, g.array(variant + "_layers.f32"))
        final = hidden[-1][0].view(shape)
        g.compare(variant + " hidden", final, g.array(variant + "_hidden.f32"))
        # Recorded without the soft cap.
        g.compare(variant + " logits", final @ target.model.embed_tokens.weight.T, g.array(variant + "_logits.f32"))
    return g


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    root = sys.argv[1]
    dense, target = check_target(root, "dense")
    check_greedy(dense, target)
    moe, experts = check_target(root, "moe")
    check_greedy(moe, experts)
    one_more = dense.json["prompt_tokens"] + dense.json["greedy_tokens"][:1]
    found = [dense, moe, check_assistant(root, target, target(torch.tensor([one_more]))), check_dflash(root, target)]
    for g in found:
        print("%s: relative rms at most %.2g" % (os.path.basename(g.folder), g.worst))


if __name__ == "__main__":
    main()
