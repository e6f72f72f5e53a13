"""Tiny random models, transformers' greedy generation as their oracle, and a way to serve them."""

import torch
import transformers
from transformers import AutoModelForCausalLM

from acb_minimal.kv_cache import KVCache, PagePool
from acb_minimal.model import Model
from acb_minimal.preemption import SwappingModel
from acb_minimal.request import Request
from acb_minimal.run.checkpoint import Checkpoint
from acb_minimal.run.engines import copies_pages, load_chapter
from acb_minimal.run.parts import MODES
from acb_minimal.run.timed import Machine
from acb_minimal.scheduler import Scheduler
from acb_minimal.sim.device import CpuDevice
from acb_minimal.slot import SlotSize

VOCAB = 89
TINY = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,  # large, so that the next token depends on all before it and ties do not occur
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
FAMILIES = {
    "llama": lambda: transformers.LlamaConfig(**TINY),
    "qwen3": lambda: transformers.Qwen3Config(**TINY),
    "mistral": lambda: transformers.MistralConfig(**TINY, sliding_window=12),
}


def save(config, folder) -> str:
    """The folder, with a random model of this config in it, as save_pretrained writes it; always the same one."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)


class Harness:
    """One tiny model: `serve` runs a chapter over it, `oracle` is what transformers generates."""

    def __init__(self, path: str):
        self.checkpoint = Checkpoint(path)
        self.network = self.checkpoint.load(torch.device("cpu"))
        self.reference = AutoModelForCausalLM.from_pretrained(path).eval()
        self.known: dict[tuple[int, ...], list[int]] = {}

    def oracle(self, prompt: list[int], max_new_tokens: int, stop_tokens=(), longest: int = 16) -> list[int]:
        """Greedy tokens of `generate`, cut where a stop token ends them; `longest` are made once per prompt."""
        assert max_new_tokens <= longest
        if tuple(prompt) not in self.known:
            ids = torch.tensor([prompt])
            mask = torch.ones_like(ids)  # left out, `generate` masks every token that happens to be pad_token_id
            out = self.reference.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=longest)
            self.known[tuple(prompt)] = out[0, len(prompt) :].tolist()
        tokens = self.known[tuple(prompt)][:max_new_tokens]
        ends = [index for index, token in enumerate(tokens) if token in stop_tokens]
        return tokens[: ends[0] + 1] if ends else tokens

    def serve(
        self,
        requests: list[Request],
        chapter: str = "ch1",
        arrivals=None,
        device: Machine | None = None,
        page_size=4,
        pages=64,
        max_running=4,
        max_batch_tokens=32,
        preempt=None,
    ) -> Scheduler:
        """Serves all requests; request i is added once `arrivals[i]` others have finished (default: 0)."""
        device = device or CpuDevice()
        pool = PagePool(pages, page_size)
        kind = MODES[preempt] if preempt else Scheduler
        scheduler = kind(pool, max_running, max_batch_tokens, VOCAB, self.checkpoint.max_positions)
        cache = KVCache(self.checkpoint.layers, pages, page_size, self.checkpoint.dtype, device.torch_device)
        size = SlotSize(max_running, max_batch_tokens, pages)
        engine_class = load_chapter(chapter)
        parts = self.network, self.checkpoint.layers, cache, size, device
        model = (SwappingModel if copies_pages(engine_class) else Model)(*parts)
        if preempt == "swap":
            model.make_berths(scheduler.berths.num_pages)
        engine = engine_class(model, scheduler, device.cuda)
        queue = sorted(zip(arrivals or [0] * len(requests), range(len(requests)), strict=True))
        finished = 0
        while queue or scheduler.has_work():
            while queue and (queue[0][0] <= finished or not scheduler.has_work()):
                scheduler.add(requests[queue.pop(0)[1]])
            for _ in engine.run():
                finished += 1
                while queue and queue[0][0] <= finished:
                    scheduler.add(requests[queue.pop(0)[1]])
        model.close()
        assert finished == len(requests)
        assert scheduler.pool.num_free == scheduler.pool.num_pages
        return scheduler
