"""Puts an engine together (chapter, model, device) and runs requests through it: the Python entry point."""

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch

from ..errors import InputError
from ..grammar import GrammarModel
from ..kv_cache import KVCache, PagePool
from ..request import Request
from ..slot import SlotSize
from .arrivals import ArrivingScheduler
from .checkpoint import Checkpoint
from .compile import compile_decodes, run_plain, warm_up_compiled
from .devices import check_device, check_gpu, open_device
from .engines import load_chapter
from .graphed import graphed
from .options import Options
from .parts import choose_parts, settled
from .ranks import WatchedScheduler
from .streams import Completion, StoppingScheduler, StreamingScheduler, Texts, Token, once
from .timed import Machine, TimedModel, TimedScheduler, composed, timed
from .warm_up import warm_up
from .workload import Job

# Bytes of weights below which a second thread of the CPU only gets in the way: of this run, and of all others.
SMALL = 64 << 20


def generate(
    prompts: str | Iterable[str | Sequence[int]],
    chapter: str = "ch1",
    model: str = "counter",
    device: str = "auto",
    max_new_tokens: int = 128,
    options: Options | None = None,
    stream: bool = False,
    **limits,
) -> "Session":
    """Serves prompts, of text or token ids, and yields each one's completion as it finishes.

    A prompt that cannot be served comes first, with its error; the others are served all the same.

    Args:
        stream: whether to yield each Token as well, as it comes, before the completion.
        limits: the other fields of a Job: sampling, stop, max_running, pages, preempt, grammar, arrivals and so on.

    Returns:
        What to iterate over, once; meanwhile, its `cancel(id)` ends a request that has not finished.

    Raises:
        InputError: the chapter, model, device or a limit cannot be used at all; before any work.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    return Session(Job(prompts, max_new_tokens, **limits), chapter, model, device, options, stream=stream)


class Session:
    """Requests on their way through one chapter's engine. Everything is checked when it is made, before the model is
    loaded; what cannot be used, other than a single request, is an InputError.

    Iterated over, it hands out the refused requests, and then every other one as it finishes. The engine stands still
    while its reader does: nothing is lost, nobody else gets a token meanwhile, and that time counts. A reader who
    leaves ends the run.

    Attributes:
        requests: those that were accepted, in the order of the prompts; ids are the prompts' numbers, "0", "1", ...
        refused: why each of the others cannot be served, by id.
        arrivals: when requests arrive; None: all are there from the start.
        options: what is turned, by the job or else by those given; once a run has begun, `compile` says whether its
            layers could be compiled.
        started: when serving began, in seconds on the device's clock.
        done: the batches whose tokens have come back, in order.
        trace: what host and device did, once the run has ended; None if it was not asked for.
        mask_work: seconds to add to the masks of a batch of that number; by default those of `options`.
        progress: is told what goes on before serving begins, and then, by an empty text, that it does.
    """

    def __init__(
        self,
        job: Job,
        chapter: str | type = "ch1",
        model: str | Checkpoint = "counter",
        device: str | Machine = "auto",
        options: Options | None = None,
        trace: bool = False,
        stream: bool = False,
    ):
        """
        Args:
            chapter: a chapter's name, the short form ("ch1") included, the path of a file with an `Engine`, or such a
                class itself.
            model: a name that Checkpoint takes, or a Checkpoint. If ranks share it, all of them must make this session.
            device: "cuda"; "sim", the simulated GPU; "cpu", where nothing overlaps; "auto": CUDA if there is one, else
                the simulator; or a Machine.
            trace: whether to record what host and device do.
            stream: whether to yield tokens as well, as they come.
        """
        self.engine_class = chapter if isinstance(chapter, type) else load_chapter(chapter)
        check_device(device if isinstance(device, str) else device.kind)
        self.checkpoint = model if isinstance(model, Checkpoint) else Checkpoint(model)
        options = options or Options()
        self.device = open_device(device, self.checkpoint, trace, options) if isinstance(device, str) else device
        self.options = settled(options, job, self.checkpoint)
        self.parts = choose_parts(self.engine_class, len(job.prompts), self.options, self.checkpoint)
        if self.parts.drafts and not self.device.arithmetic and self.options.acceptance is None:
            raise InputError("the simulator only keeps time for this model, where no draft is right: give acceptance")
        if stops := [job.stop] if isinstance(job.stop, str) else job.stop:
            self.checkpoint.tokenizer()
        self.texts = Texts(self.checkpoint.decode, stops)
        self.trace, self.arrivals, ranks = self.device.trace, self.options.arrivals, self.checkpoint.ranks
        if ranks and self.trace:
            self.trace.rank = ranks.rank
        if self.arrivals:
            self.arrivals.check(len(job.prompts), ranks)

        self.refused: dict[str, str] = {}
        asked, most = self._requests(job), self.checkpoint.max_positions
        longest = max((min(request.max_positions, most) for request in asked), default=1)
        per_request = PagePool(1, job.page_size).pages_for(max(longest, 1))
        pages = per_request * max(job.max_running, 1) if self.options.pages is None else self.options.pages
        self.pool = PagePool(pages, job.page_size)
        around = {
            WatchedScheduler: ranks,
            StreamingScheduler: stream,
            ArrivingScheduler: self.arrivals,
            StoppingScheduler: stops,
        }
        kinds = *(kind for kind, asked_for in around.items() if asked_for), TimedScheduler, self.parts.scheduler
        told = {"ranks": ranks, "arrivals": self.arrivals, "texts": self.texts, "num_berths": job.berths}
        limits = job.max_running, job.max_batch_tokens, self.checkpoint.vocab_size, most
        timing = {"device": self.device, "host_work": lambda number: self.options.host_work}
        self.scheduler = composed(*kinds, **told)(self.pool, *limits, **timing)
        self.requests: list[Request] = []
        for request in asked:
            try:
                self.scheduler.add(request)
                self.requests.append(request)
            except InputError as error:
                self.refused[request.id] = str(error)
        pages = min(per_request, self.pool.num_pages) + self.pool.pages_for(self.parts.beyond)
        biases = max((len(getattr(request, "biases", ())) for request in self.requests), default=0)
        self.size = SlotSize(*limits[:2], pages, self.checkpoint.vocab_size, biases, self.parts.drafts)
        check_gpu(self.checkpoint, self.pool, self.device)
        self.mask_work: Callable[[int], float] = lambda number: self.options.mask_work
        self.progress: Callable[[str], None] = lambda text: None
        self.started, self.done = 0.0, self.scheduler.done
        self._cancelled: list[Request] = []  # and not yielded yet
        self._begun = False

    def _requests(self, job: Job) -> list[Request]:
        """A request for each prompt that makes one; why the others do not goes into `refused`."""
        stop_tokens = () if job.ignore_stop else self.checkpoint.stop_tokens
        made = []
        each = zip(job.prompts, job.new_tokens, self.parts.requests, strict=True)
        for id, (prompt, new_tokens, request) in ((str(number), one) for number, one in enumerate(each)):
            try:
                ids = self.checkpoint.encode(prompt) if isinstance(prompt, str) else prompt
                if isinstance(ids, bytes | dict | set) or any(isinstance(token, bool) for token in ids):
                    raise TypeError  # text in disguise, without an order, or no ids
                made.append(request(id, ids, new_tokens, stop_tokens))
            except (InputError, TypeError) as error:
                other = f"the prompt is {prompt!r}; it must be text or a sequence of token ids"
                self.refused[id] = f"request {id!r}: {error if isinstance(error, InputError) else other}"
        return made

    def __iter__(self) -> Iterator[Completion | Token]:
        for id, reason in self.refused.items():
            yield Completion(id, [], None, None, reason)
        yield from self.run()

    def cancel(self, id: str) -> bool:
        """Ends a request: its completion, with what it has got so far, comes next. That can be a token more than was
        handed out, if they came from one batch. False if it has finished already; InputError if there is none."""
        if id not in {request.id for request in self.requests}:
            raise InputError(f"cannot cancel request {id!r}: no request has that id")
        request = self.scheduler.cancel(id)
        self._cancelled += [request] if request else []
        return request is not None

    def serve(self) -> list[Completion]:
        """Serves the accepted requests to the end; their completions in the order of the prompts."""
        return sorted(self.run(), key=lambda completion: int(completion.id))

    def run(self) -> Iterator[Completion]:
        """Serves the accepted requests, yielding each as it finishes.

        Raises:
            InputError: another session of the same Checkpoint is not done, or this one was served before.
            EngineError: the engine has not yielded each request once.
            RankError: another rank is gone, or does something else.
        """
        if self._begun:
            raise InputError("this session has been served: make another")
        if self.requests:
            with self.scheduler.watched() if self.checkpoint.ranks else nullcontext():
                yield from self._run()

    def _run(self) -> Iterator[Completion | Token]:
        model, threads, self._begun = self.load_model(), torch.get_num_threads(), True
        if self.device.torch_device.type == "cpu" and self.checkpoint.weight_bytes < SMALL:
            torch.set_num_threads(1)
        try:
            if self.options.compile and self.device.kind != "sim":
                self.options = replace(self.options, compile=warm_up_compiled(model, self.progress))
            else:
                warm_up(model)
            with self.device.engine_code():
                engine = self.engine_class(model, self.scheduler, self.device.cuda)
            if self.device.kind != "sim":  # whose time is virtual
                # A full garbage collection walks all of torch and transformers, for longer than a step. From here on
                # it leaves out what is there already.
                gc.collect()
                gc.freeze()
            self.progress("")
            self.started = self.device.begin()
            for found in once(self.requests, self._yielded(engine), self._cancelled):
                yield self._completion(found) if isinstance(found, Request) else self._token(*found)
            self.device.finish()
            if self.trace:
                self.trace.told(self.done)
        finally:
            gc.unfreeze()
            torch.set_num_threads(threads)
            self.scheduler.abort()  # nothing is left to abort unless the run was cut short
            model.close()

    def _yielded(self, engine: object) -> Iterator:
        """What an engine yields, one at a time: who takes it is no engine's code."""
        yielded, end = iter(engine.run() or ()), object()
        while True:
            with self.device.engine_code():
                found = next(yielded, end)
            if found is end:
                return
            yield found

    def _completion(self, request: Request) -> Completion:
        text, logprobs = self.checkpoint.decode(request.generated), getattr(request, "logprobs", None)
        text = text and self.texts.cut(text)
        return Completion(request.id, request.generated, text, request.finish_reason, logprobs=logprobs or None)

    def _token(self, request: Request, place: int) -> Token:
        return Token(request.id, request.tokens[place], self.texts.added(request, place))

    def load_model(self) -> TimedModel:
        """The model on the device, with a KV cache of its own."""
        layers, pages, page_size = self.checkpoint.layers, self.pool.num_pages, self.pool.page_size
        network = self.checkpoint.load(self.device.torch_device) if self.device.arithmetic else None
        if network is not None and self.device.kind != "sim":
            (compile_decodes if self.options.compile else run_plain)(network)
        where = self.device.torch_device if self.device.arithmetic else "meta"
        cache = KVCache(layers, pages, page_size, self.checkpoint.dtype, where)
        kind = timed(self.parts.model)
        if issubclass(self.parts.model, GrammarModel):
            kind.slot_class.mask_work = staticmethod(self.mask_work)
        given = self.parts.given(self.requests, self.checkpoint.vocab_size)
        kind = graphed(kind) if self.options.graphs else kind
        model = kind(network, layers, cache, self.size, self.device, *given)
        if self.options.preempt == "swap":
            model.make_berths(self.scheduler.berths.num_pages)
        return model
