"""The tasks of a `wgrad bench` file in PyTorch, on the same GPU: python3 torch_tasks.py FILE [MODE...] > torch.jsonl

FILE has the JSON lines of `wgrad bench --save`. Prints one line of JSON per task and mode. Modes: f32 (TF32 off), tf32,
bf16 (autocast for training steps, bf16 operands for kernels); for training steps also f32-graph and bf16-graph, the
whole step captured as a CUDA graph. Fields as in wgrad's files: `median_s` is a run and a wait by the host's clock,
`batch_s` a run among many that are enqueued together, `device_s` a run by the GPU's clock. Without a GPU it runs on the
CPU.
"""
import json
import math
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

CUDA = torch.cuda.is_available()
DEV = "cuda" if CUDA else "cpu"
SECONDS = 0.6  # measuring time per task and mode
torch.manual_seed(1)


def sync():
    if CUDA:
        torch.cuda.synchronize()


def rnd(*shape, dtype=torch.float32):
    return (torch.rand(*shape, device=DEV) * 2 - 1).to(dtype)


def labels(n, classes):
    return (torch.arange(n, device=DEV) * 7 + 3) % classes


def measure(run, steps=1):
    """Median, fastest and batched seconds of one run; by the card's events where there is one."""
    for _ in range(3):
        run()
    sync()
    times, start = [], time.perf_counter()
    while len(times) < 5 or (time.perf_counter() - start < SECONDS and len(times) < 5000):
        t = time.perf_counter()
        run()
        sync()
        times.append(time.perf_counter() - t)
    times.sort()
    median = times[len(times) // 2]
    count = max(3, min(500, int(SECONDS / max(median, 1e-6))))
    t = time.perf_counter()
    for _ in range(count):
        run()
    sync()
    batch = (time.perf_counter() - t) / count
    device = None
    if CUDA:
        marks = []
        for _ in range(min(count, 100)):
            a, b = torch.cuda.Event(True), torch.cuda.Event(True)
            a.record()
            run()
            b.record()
            marks.append((a, b))
        sync()
        spans = sorted(a.elapsed_time(b) / 1e3 for a, b in marks)
        device = spans[len(spans) // 2] / steps
    return {"median_s": median / steps, "min_s": times[0] / steps, "batch_s": batch / steps, "device_s": device, "runs": len(times)}


def no_grad(f):
    def run():
        with torch.no_grad():
            return f()
    return run


def graphed(step):
    """The step as one CUDA graph, replayed."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(5):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()
    return graph, loss


def training(model, x, y, mode, every=1):
    model = model.to(DEV)
    graph_mode = mode.endswith("-graph")
    opt = torch.optim.Adam(model.parameters(), lr=1e-3, capturable=graph_mode and CUDA)

    def step():
        opt.zero_grad(set_to_none=not graph_mode)
        if mode.startswith("bf16"):
            with torch.autocast(DEV, torch.bfloat16):
                loss = F.cross_entropy(model(x), y)
        else:
            loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        return loss

    if graph_mode:
        if not CUDA:
            return None
        graph, loss = graphed(step)

        def run():
            for _ in range(every):
                graph.replay()
            return loss.item()
        return run

    def run():
        for _ in range(every):
            loss = step()
        return loss.item()
    return run


class Recurrent(nn.Module):
    def __init__(self, kind, i, h):
        super().__init__()
        self.rnn, self.out = getattr(nn, kind)(i, h, batch_first=True), nn.Linear(h, 10)

    def forward(self, x):
        y, _ = self.rnn(x)
        return self.out(y[:, -1])


def make(task, p, mode):
    """A function that runs once, its floating point operations, its least bytes, the steps in it."""
    d = torch.bfloat16 if mode.startswith("bf16") else torch.float32
    size = 2 if d == torch.bfloat16 else 4
    if task == "matmul":
        a, b = (rnd(*p[:-1], dtype=d), rnd(*p[:-3], *p[-2:], dtype=d))
        return no_grad(lambda: torch.matmul(a, b)), 2.0 * math.prod(p), 0, 1
    if task in ("conv2d", "conv2d_bwd"):
        n, c, h, w, o, k, s, pad = p
        oh, ow = (h + 2 * pad - k) // s + 1, (w + 2 * pad - k) // s + 1
        flop = 2.0 * n * o * oh * ow * c * k * k
        x, kernel, g = rnd(n, c, h, w, dtype=d), rnd(o, c, k, k, dtype=d), rnd(n, o, oh, ow, dtype=d)
        if task == "conv2d":
            return no_grad(lambda: F.conv2d(x, kernel, stride=s, padding=pad)), flop, 0, 1
        x.requires_grad_()
        kernel.requires_grad_()

        def run():
            loss = (F.conv2d(x, kernel, stride=s, padding=pad) * g).sum()
            return torch.autograd.grad(loss, (x, kernel))
        return run, 3.0 * flop, 0, 1
    if task in ("attention", "attention_bwd"):
        heads, length, dim = p
        q, k, v, g = (rnd(1, heads, length, dim, dtype=d) for _ in range(4))
        flop = 4.0 * heads * length * length * dim
        if task == "attention":
            return no_grad(lambda: F.scaled_dot_product_attention(q, k, v)), flop, 0, 1
        for t in (q, k, v):
            t.requires_grad_()

        def run():
            return torch.autograd.grad((F.scaled_dot_product_attention(q, k, v) * g).sum(), (q, k, v))
        return run, 3.0 * flop, 0, 1
    if task in ("softmax", "cross_entropy", "layernorm", "rmsnorm", "cumsum", "argmax", "sort", "transpose", "dropout"):
        r, c = p
        x, gamma, beta = rnd(r, c, dtype=d), rnd(c, dtype=d), rnd(c, dtype=d)
        n = r * c
        if task == "cross_entropy":
            y = labels(r, c)
            x.requires_grad_()

            def run():
                return torch.autograd.grad(F.cross_entropy(x, y, reduction="sum"), x)
            return run, 0, 2 * size * n, 1
        f, nbytes = {
            "softmax": (lambda: torch.softmax(x, 1), 2 * size * n),
            "layernorm": (lambda: F.layer_norm(x, (c,), gamma, beta), 2 * size * n),
            "rmsnorm": (lambda: F.rms_norm(x, (c,), gamma), 2 * size * n),
            "cumsum": (lambda: torch.cumsum(x, 1), 2 * size * n),
            "argmax": (lambda: torch.argmax(x, 1), size * n),
            "sort": (lambda: torch.sort(x, 1)[0], 2 * size * n),
            "transpose": (lambda: x.t().contiguous(), 2 * size * n),
            "dropout": (lambda: F.dropout(x, 0.5, True), 2 * size * n),
        }[task]
        return no_grad(f), 0, nbytes, 1
    if task in ("batchnorm", "groupnorm", "max_pool2d", "avg_pool2d"):
        n, c, h, w = p
        x, gamma, beta = rnd(n, c, h, w, dtype=d), rnd(c), rnd(c)
        mean, var = torch.zeros(c, device=DEV), torch.ones(c, device=DEV)
        f, out = {
            "batchnorm": (lambda: F.batch_norm(x, mean, var, gamma, beta, True), 1.0),
            "groupnorm": (lambda: F.group_norm(x, c // 4, gamma.to(d), beta.to(d)), 1.0),
            "max_pool2d": (lambda: F.max_pool2d(x, 2), 0.25),
            "avg_pool2d": (lambda: F.avg_pool2d(x, 2), 0.25),
        }[task]
        return no_grad(f), 0, size * n * c * h * w * (1 + out), 1
    if task in ("embedding", "embedding_bwd"):
        rows, dim, count = p
        table, index = rnd(rows, dim, dtype=d), torch.randint(0, rows, (count,), device=DEV)
        if task == "embedding":
            return no_grad(lambda: F.embedding(index, table)), 0, 2 * size * count * dim, 1
        g = rnd(count, dim, dtype=d)
        table.requires_grad_()

        def run():
            return torch.autograd.grad(F.embedding(index, table), table, g)
        return run, 0, size * (count + rows) * dim, 1
    if task in ("relu", "gelu", "sum", "dot", "add"):
        x, y = rnd(p[0], dtype=d), rnd(p[0], dtype=d)
        f = {"relu": lambda: F.relu(x), "gelu": lambda: F.gelu(x), "sum": lambda: x.sum(), "dot": lambda: torch.dot(x, y),
             "add": lambda: x + y}[task]
        return no_grad(f), 0, size * p[0] * {"sum": 1, "add": 3}.get(task, 2), 1
    if task in ("mlp_step", "mlp_step_nosync"):
        every = 20 if task.endswith("nosync") else 1
        layers, macs = [], 0
        for a, b in zip(p[1:], p[2:]):
            layers += [nn.Linear(a, b), nn.ReLU()]
            macs += p[0] * a * b
        run = training(nn.Sequential(*layers[:-1]), rnd(p[0], p[1]), labels(p[0], p[-1]), mode, every)
        return run, 6.0 * macs, 0, every
    if task == "cnn_step":
        n, c, h, w = p
        model = nn.Sequential(
            nn.Conv2d(c, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * (h // 4) * (w // 4), 128), nn.ReLU(), nn.Linear(128, 10))
        macs = n * (32 * h * w * 9 * c + 64 * (h // 2) * (w // 2) * 32 * 9 + 64 * (h // 4) * (w // 4) * 128 + 1280)
        return training(model, rnd(n, c, h, w), labels(n, 10), mode), 6.0 * macs, 0, 1
    if task in ("lstm_step", "gru_step"):
        n, t, i, h = p
        gates = 4 if task == "lstm_step" else 3
        macs = n * t * gates * h * (i + h) + n * h * 10
        kind = "LSTM" if task == "lstm_step" else "GRU"
        return training(Recurrent(kind, i, h), rnd(n, t, i), labels(n, 10), mode), 6.0 * macs, 0, 1
    return None


def main():
    with open(sys.argv[1]) as lines:
        records = [json.loads(line) for line in lines if line.strip()]
    tasks = [(r["task"], [n for n in r["params"] if isinstance(n, int)]) for r in records if r.get("params")]
    modes = sys.argv[2:] or ["f32", "f32-graph"]
    print(json.dumps({"torch": torch.__version__, "device": torch.cuda.get_device_name() if CUDA else "cpu",
                      "cudnn": torch.backends.cudnn.version() if CUDA else None}), flush=True)
    for name, p in tasks:
        for mode in modes:
            step = name.endswith("_step") or name.endswith("nosync")
            if mode.endswith("-graph") and not step:
                continue
            heavy = step or name.split("_")[0] in ("matmul", "conv2d", "attention")
            if mode == "tf32" and not heavy:
                continue
            torch.backends.cuda.matmul.allow_tf32 = mode == "tf32"
            torch.backends.cudnn.allow_tf32 = mode == "tf32"
            torch.backends.cudnn.benchmark = True
            line = {"peer": "torch-" + mode, "task": name, "params": p}
            try:
                made = make(name, p, mode)
                if made is None or made[0] is None:
                    continue
                run, flop, nbytes, steps = made
                line.update({k: v and round(v, 9) for k, v in measure(run, steps).items()})
                t = line["median_s"] if step else line["device_s"] or line["batch_s"]
                line["gflops"] = round(flop / t / 1e9, 2) if flop else None
                line["gb_s"] = round(nbytes / t / 1e9, 2) if nbytes else None
                if CUDA:
                    line["peak_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
                    torch.cuda.reset_peak_memory_stats()
                del made, run
            except Exception as e:  # one task that fails leaves the others their figures
                line["error"] = f"{type(e).__name__}: {e}"[:300]
            print(json.dumps(line), flush=True)
            if CUDA:
                torch.cuda.empty_cache()


main()
