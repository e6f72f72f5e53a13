"""Puts an engine together (chapter, model, device) and runs requests through it: the Python entry point."""

import gc
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .costs import Costs
from .device import CpuDevice, Device, SimulatedDevice
from .errors import InputError
from .kv_cache import KVCache, PagePool
from .load import Checkpoint
from .model import Model
from .request import FinishReason, Request
from .results import Figures
from .scheduler import Scheduler
from .slot import SlotSize
from .trace import Trace
from .workload import Workload

CHAPTERS = Path(__file__).parent.parent / "chapters"
DEVICES = ("auto", "cuda", "sim", "cpu")
# Device bytes left to activations, logits and the CUDA libraries when weights and KV cache are sized.
WORKSPACE = 2 << 30


@dataclass(frozen=True)
class Completion:
    """What became of one prompt: either `error` is None, or all else but `id` is empty.

    tokens  generated token ids, the stop token included
    text    those as text, special tokens left out; None for a prompt of token ids to a model without a tokenizer
    """

    id: str
    tokens: list[int]
    text: str | None
    finish_reason: FinishReason | None
    error: str | None = None


def generate(
    prompts: str | Iterable[str | Sequence[int]],
    chapter: str = "ch1",
    model: str = "counter",
    device: str = "auto",
    max_new_tokens: int = 128,
    **options,
) -> Iterator[Completion]:
    """Serves prompts, of text or token ids, and yields each one's completion as it finishes.

    A prompt that cannot be served comes first, with its error; the others are served all the same. Raises InputError
    for a chapter, model, device or option (those of Session) that cannot be used at all, before any work.
    """
    session = Session(prompts, chapter, model, device, max_new_tokens, **options)
    return session.completions()


class Session:
    """Requests on their way through one chapter's engine.

    prompts           text or token ids; their ids are "0", "1", ... in order
    chapter           a chapter's name, the short form ("ch1") included, the path of a file with an `Engine`, or such a
                      class itself
    model             a name that load.Checkpoint takes, or a Checkpoint
    device            "cuda"; "sim", the simulated GPU; "cpu", where nothing overlaps; "auto": CUDA if there
                      is one, else the simulator; or a Device
    max_new_tokens    tokens to generate for each prompt, at most
    max_running       requests in a batch at most
    max_batch_tokens  tokens in a batch at most; by default 2,048, or max_running if that is more
    page_size         positions per KV page
    pages             KV pages; by default as many as max_running of the longest request need
    ignore_stop       generate max_new_tokens for every prompt, whatever the model says
    trace             record what host and device do: `trace`, and the GPU's busy share in `figures`

    Everything is checked here, before the model is loaded: `refused` maps the id of each request that cannot be
    served to the reason; anything else that is wrong raises InputError.
    """

    def __init__(
        self,
        prompts: str | Iterable[str | Sequence[int]],
        chapter: str | type = "ch1",
        model: str | Checkpoint = "counter",
        device: str | Device = "auto",
        max_new_tokens: int = 128,
        *,
        max_running: int = 16,
        max_batch_tokens: int | None = None,
        page_size: int = 64,
        pages: int | None = None,
        ignore_stop: bool = False,
        trace: bool = False,
    ):
        self.engine_class = chapter if isinstance(chapter, type) else load_chapter(chapter)
        name = device if isinstance(device, str) else device.torch_device.type
        check_device(name)
        self.checkpoint = model if isinstance(model, Checkpoint) else Checkpoint(model)
        self.device = open_device(name, self.checkpoint, trace) if isinstance(device, str) else device
        self.refused: dict[str, str] = {}
        stop_tokens = () if ignore_stop else self.checkpoint.stop_tokens
        requests = []
        for number, prompt in enumerate([prompts] if isinstance(prompts, str) else prompts):
            try:
                ids = self.checkpoint.encode(prompt) if isinstance(prompt, str) else prompt
                requests.append(Request(str(number), ids, max_new_tokens, stop_tokens))
            except InputError as error:
                self.refused[str(number)] = f"request {str(number)!r}: {error}"
            except TypeError:
                self.refused[str(number)] = (
                    f"request {str(number)!r}: the prompt is {prompt!r}; it must be text or a sequence of token ids"
                )

        longest = max((min(r.max_positions, self.checkpoint.max_positions) for r in requests), default=1)
        per_request = PagePool(1, page_size).pages_for(max(longest, 1))
        self.pool = PagePool(per_request * max(max_running, 1) if pages is None else pages, page_size)
        if max_batch_tokens is None:
            max_batch_tokens = max(2048, max_running)
        self.scheduler = Scheduler(
            self.pool,
            max_running,
            max_batch_tokens,
            self.checkpoint.vocab_size,
            self.checkpoint.max_positions,
            self.device,
        )
        self.requests: list[Request] = []
        for request in requests:
            try:
                self.scheduler.add(request)
                self.requests.append(request)
            except InputError as error:
                self.refused[request.id] = str(error)
        self.size = SlotSize(max_running, max_batch_tokens, min(per_request, self.pool.num_pages))
        check_gpu(self.checkpoint, self.pool, self.device.torch_device)
        self.started = 0.0

    @classmethod
    def of(
        cls,
        workload: Workload,
        chapter: str | type,
        checkpoint: Checkpoint,
        device: str | Device = "auto",
        **options,
    ) -> "Session":
        """The requests of a workload; `options` are those above that the workload leaves open."""
        return cls(
            workload.prompts(checkpoint.vocab_size),
            chapter,
            checkpoint,
            device,
            workload.new_tokens,
            max_running=workload.max_running,
            max_batch_tokens=workload.max_batch_tokens,
            ignore_stop=workload.prompt_tokens is not None,
            **options,
        )

    def completions(self) -> Iterator[Completion]:
        """The refused requests, then every other one as it finishes."""
        for id, reason in self.refused.items():
            yield Completion(id, [], None, None, reason)
        yield from self.run()

    def run(self) -> Iterator[Completion]:
        """Serves the accepted requests, yielding each as it finishes.

        The time a caller takes between two of them counts: the engine stands still meanwhile.
        """
        if not self.requests:
            return
        model = self.load_model()
        try:
            engine = self.engine_class(model, self.scheduler, self.device.cuda)
            # A full garbage collection walks all of torch and transformers, for longer than a step. From here on it
            # leaves out what is there already.
            gc.collect()
            gc.freeze()
            self.started = self.device.begin()
            for request in engine.run():
                tokens = request.generated
                yield Completion(request.id, tokens, self.checkpoint.decode(tokens), request.finish_reason)
            self.device.finish()
        finally:
            gc.unfreeze()
            self.scheduler.abort()  # nothing is left to abort unless the run was cut short
            model.close()

    def figures(self) -> Figures:
        """What the run measured, once it has ended."""
        prompt_tokens = sum(request.prompt_len for request in self.requests)
        new_tokens = sum(len(request.generated) for request in self.requests)
        busy = self.trace.busy() if self.trace else None
        return Figures.of(len(self.requests), prompt_tokens, new_tokens, self.started, self.scheduler.steps, busy)

    @property
    def trace(self) -> Trace | None:
        """What host and device did, once the run has ended; None if it was not asked for."""
        return self.device.trace

    def load_model(self) -> Model:
        """The model on the device, warmed up."""
        layers, pages, page_size = self.checkpoint.layers, self.pool.num_pages, self.pool.page_size
        network = self.checkpoint.load(self.device.torch_device) if self.device.arithmetic else None
        where = self.device.torch_device if self.device.arithmetic else "meta"
        cache = KVCache(layers, pages, page_size, self.checkpoint.dtype, where)
        model = Model(network, layers, cache, self.size, self.device)
        model.warm_up()
        return model


def chapter_paths() -> dict[str, Path]:
    """The course's chapters, by name, in order."""
    return {path.stem: path for path in sorted(CHAPTERS.glob("ch[0-9]*.py"))}


def chapter_path(name: str) -> Path:
    """The file of a chapter: by name ("ch1_sync"), short name ("ch1") or path. Raises InputError."""
    paths = chapter_paths()
    short = {stem.split("_")[0]: path for stem, path in paths.items()}
    path = Path(name) if name.endswith(".py") else paths.get(name) or short.get(name)
    if path is None or not path.is_file():
        raise InputError(f"unknown chapter {name!r}: give one of {', '.join(paths)}, or the path of a .py file")
    return path


def load_chapter(name: str) -> type:
    """The `Engine` of a chapter. Raises InputError if there is no such chapter or it cannot be imported."""
    path = chapter_path(name)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return module.Engine
    except Exception as error:
        raise InputError(f"chapter {name!r} cannot be used: {type(error).__name__}: {error}") from error


def check_device(name: str) -> None:
    """Raises InputError for an unknown device, and for CUDA where there is none."""
    if name not in DEVICES:
        raise InputError(f"unknown device {name!r}: the devices are {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda' is not available here: torch finds no CUDA GPU; use sim")


def open_device(name: str, checkpoint: Checkpoint, trace: bool = False) -> Device:
    """The device of that name. On the simulator, the large random models only take time; they compute nothing."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "sim"
    if name == "sim":
        costs = Costs.of(checkpoint.name, checkpoint.weight_bytes)
        return SimulatedDevice(costs, arithmetic=not checkpoint.random, trace=trace)
    return CpuDevice() if name == "cpu" else Device(trace)


def check_gpu(checkpoint: Checkpoint, pool: PagePool, device: torch.device) -> None:
    """Raises InputError when a CUDA device cannot run the model: head size, or memory for weights and KV cache."""
    if device.type != "cuda":
        return
    for head_dim in {layer.head_dim for layer in checkpoint.layers}:
        if head_dim < 16 or head_dim & (head_dim - 1):
            raise InputError(
                f"model {checkpoint.name!r}: its head size is {head_dim}; a GPU needs a power of two, 16 or more"
            )
    cache = KVCache.bytes_for(checkpoint.layers, pool.num_pages, pool.page_size, checkpoint.dtype)
    weights = 0 if checkpoint.is_loaded(device) else checkpoint.weight_bytes
    torch.cuda.empty_cache()  # what an earlier run has left to torch's allocator is free too
    free, _ = torch.cuda.mem_get_info(device)
    if weights + cache + WORKSPACE > free:
        raise InputError(
            f"too little GPU memory: {pool.num_pages} KV pages take {cache / 1e9:.1f} GB and the weights of "
            f"{checkpoint.name!r} {checkpoint.weight_bytes / 1e9:.1f} GB; {free / 1e9:.1f} GB are free, of which "
            f"{WORKSPACE / 1e9:.1f} GB are kept for activations"
        )
