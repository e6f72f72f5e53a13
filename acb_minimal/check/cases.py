"""Small adversarial cases. Scheduler, slots, paged cache and attention are the real ones, the network is small."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from ..grammar import Automaton
from ..request import Request
from ..run.workload import workload
from ..sampling import Sampling, SamplingRequest
from ..slot import SlotSize
from ..speculation import SpeculatingRequest
from .network import NETWORK, REPEATING, VOCAB, Network
from .oracle import Step, generate, steps


class Prompt(NamedTuple):
    """What one request asks for."""

    length: int  # tokens of the prompt
    new_tokens: int  # to generate at most
    stops_after: int | None = None  # after how many of them a stop token ends the request; None: it has no stop token
    grammar: Automaton | None = None  # what its tokens are held to
    sampling: Sampling | None = None  # how they are chosen; None: each is the likeliest
    cancelled_after: int | None = None  # its reader cancels it when he has been handed so many; None: he does not


@dataclass(frozen=True)
class Case:
    """Requests and limits that lead an engine into temptation."""

    name: str
    prompts: tuple[Prompt, ...]
    pages: int  # of the KV cache
    max_running: int  # requests in a batch at most
    max_batch_tokens: int  # in a batch at most
    page_size: int = 2  # positions per page
    row_pages: int | None = None  # of one row at most; None: all
    host_work: float = 0.0  # seconds of bookkeeping added to every step
    # If not 0, pages are given on demand, and a request that gives way is copied to one of so many berths, or computed
    # again, where there is none or the engine copies no pages.
    berths: int = 0
    drafts: int = 0  # in each decode; 0: as many as the engine needs, if it verifies any
    reserve: int | None = None  # positions behind its last that a request has pages for; None: as the engine asks for

    @property
    def network(self) -> Network:
        """Who serves it."""
        return REPEATING if self.drafts else NETWORK

    @property
    def size(self) -> SlotSize:
        """The largest batch there can be."""
        biases = max(len(prompt.sampling.logit_bias) if prompt.sampling else 0 for prompt in self.prompts)
        return SlotSize(self.max_running, self.max_batch_tokens, self.row_pages or self.pages, VOCAB, biases)

    @property
    def constrained(self) -> bool:
        """Whether any request has a grammar."""
        return any(prompt.grammar for prompt in self.prompts)

    @property
    def streamed(self) -> bool:
        """Whether its readers are handed each token, and may leave."""
        return any(prompt.cancelled_after is not None for prompt in self.prompts)

    @property
    def sampled(self) -> bool:
        """Whether any request says how its tokens are chosen."""
        return any(prompt.sampling for prompt in self.prompts)

    def prompt(self, number: int) -> list[int]:
        """The tokens of a prompt."""
        return [(7 * number + 3 * place) % VOCAB for place in range(self.prompts[number].length)]

    @cached_property
    def served(self) -> list[tuple[list[int], list[int], tuple[int, ...]]]:
        """For each request its prompt, the tokens that are right, and its stop tokens."""
        requests = []
        for number, asked in enumerate(self.prompts):
            prompt = self.prompt(number)
            tokens, stop = generate(prompt, asked.new_tokens, asked.grammar, asked.sampling, self.network), ()
            if asked.stops_after is not None:
                tokens = tokens[: asked.stops_after]
                stop = (tokens[-1],)
            requests.append((prompt, tokens[: asked.cancelled_after], stop))
        return requests

    def steps(self, drafts: int) -> list[dict[int, Step]]:
        """For each request its decodes, with so many drafts in each, by the tokens that it has generated before."""
        found = []
        for number, asked in enumerate(self.prompts):
            prompt = self.prompt(number)
            found.append(steps(prompt, generate(prompt, asked.new_tokens + drafts, network=self.network), drafts))
        return found

    def requests(self, sampled: bool, drafts: int, reserve: int) -> list[Request]:
        """New requests, to be served; their ids are "0", "1", ... in order. They are for parts that sample as asked
        for, or that have so many drafts in each decode and an engine that asks for such a reserve, or for others."""
        made = []
        for number, ((prompt, _, stop), asked) in enumerate(zip(self.served, self.prompts, strict=True)):
            given = str(number), prompt, asked.new_tokens, stop
            if drafts:
                mine = reserve if self.reserve is None else self.reserve
                made.append(SpeculatingRequest(*given, drafts=drafts, reserve=mine))
            elif sampled:
                made.append(SamplingRequest(*given, sampling=asked.sampling))
            else:
                made.append(Request(*given, asked.grammar))
        return made


CASES = (
    # A stop token ends a request whose next row is in flight. There are pages for two: its own go to the next at once.
    Case("pages", (Prompt(2, 6, 2), Prompt(2, 6, 3), Prompt(3, 5, 1), Prompt(1, 7, 2), Prompt(2, 6, 4)), 8, 3, 6),
    # Requests of different lengths: rows change place when one in front ends, and 3 rows are padded to 4. Two end in
    # the same batch. The last token of one that it may have is a stop token.
    Case("rows", (Prompt(1, 2), Prompt(1, 5), Prompt(1, 3, 3), Prompt(1, 6), Prompt(1, 5)), 16, 5, 5),
    # Prompts longer than what is left of a batch join the decodes piece by piece.
    Case("prefill", (Prompt(5, 3), Prompt(1, 6), Prompt(7, 2), Prompt(4, 3)), 16, 3, 4),
    # A little of everything.
    Case("mixed", (Prompt(3, 4, 2), Prompt(1, 5), Prompt(5, 3, 1), Prompt(2, 2), Prompt(4, 4, 3)), 8, 5, 6),
)


def near(tokens: int) -> Automaton:
    """A grammar in which each token is at most 5 behind the one before, around the vocabulary; after so many it ends.
    So the mask for a token is wrong for nearly all others."""
    states = [{token: 1 + token for token in range(VOCAB)}]  # state 1 + VOCAB * n + token: that is the token number n
    for place in range(1, tokens):
        states += [
            {(token + step) % VOCAB: 1 + VOCAB * place + (token + step) % VOCAB for step in range(1, 6)}
            for token in range(VOCAB)
        ]
    return Automaton(VOCAB, [*states, *[{}] * VOCAB])


NEAR, SHORT = near(8), near(3)
# For engines that sample by themselves: some requests have a grammar, and some of these end because it does.
GRAMMAR_CASES = (
    # One that its grammar ends has a row in flight, and one that is free takes its pages.
    Case("masks", (Prompt(2, 4, None, SHORT), Prompt(1, 4, None, NEAR), Prompt(2, 3), Prompt(1, 3, 2, NEAR)), 6, 2, 4),
    # Prompts come in pieces, so that not every row samples, and masks change place.
    Case("pieces", (Prompt(4, 3, None, NEAR), Prompt(1, 4), Prompt(5, 3, None, SHORT), Prompt(2, 2, 1, NEAR)), 9, 3, 4),
)
# For engines that copy pages: pools that are too small. Other engines can be run with them too, and compute again.
SWAP_CASES = (
    # One ends while it is away, and nothing of it comes back. One comes back when there is no batch beside it.
    Case("away", (Prompt(3, 4), Prompt(1, 6, 2), Prompt(2, 4, 1), Prompt(2, 2), Prompt(2, 4, 2)), 4, 2, 5, berths=2),
    # One finds no berth, and is computed again.
    Case("back", (Prompt(1, 6), Prompt(1, 3), Prompt(1, 4)), 4, 3, 4, berths=1),
    # One gives way whose last token is in flight: it needs its pages no more. Prompts come in pieces.
    Case("last", (Prompt(2, 7), Prompt(2, 3), Prompt(1, 5, 1), Prompt(3, 5), Prompt(2, 7, 4)), 5, 3, 3, berths=2),
    # One comes back to pages of one that has ended, and that has a row in the batch in flight.
    Case("onto", (Prompt(2, 6, 1), Prompt(2, 7, 4), Prompt(3, 6, 3)), 5, 4, 5, berths=1),
)
# For engines that hand tokens out when they are there: readers who leave. Other engines can be run with them too.
READER_CASES = (
    # One leaves with its first token, while its next may be in flight; there are pages for two, and the next takes its.
    Case("leaves", (Prompt(2, 6, cancelled_after=1), Prompt(2, 6, 3), Prompt(3, 5, cancelled_after=2), Prompt(2, 6)),
         8, 3, 6),
    # First tokens come one by one, between batches without any, and some of those are only pieces of a prompt.
    Case("firsts", (Prompt(5, 3), Prompt(1, 5, cancelled_after=2), Prompt(4, 2, 1), Prompt(2, 3)), 10, 3, 4),
)  # fmt: skip

# Tokens that are liked, and come again as often as penalties let them; each draw has a seed of its own.
LIKED = {3: 3.0, 8: 2.5, 20: 2.5}
DRAWS = tuple(
    Sampling(0.7, seed=seed, frequency_penalty=penalty, logit_bias=LIKED)
    for seed, penalty in ((24, 2.0), (25, 1.5), (27, 2.0))
)
REPEATS = Sampling(repetition_penalty=2.0, frequency_penalty=0.5, logit_bias=LIKED)
# For engines that keep the state of sampling.
SAMPLING_CASES = (
    # A row on the device is taken again, by a request whose first batch is behind one in flight that counts there.
    Case("draws", (Prompt(2, 4, 2, sampling=DRAWS[0]), Prompt(1, 4, sampling=DRAWS[1]), Prompt(1, 3, sampling=REPEATS)),
         6, 2, 3),
    # Prompts are counted piece by piece, and one request asks for nothing.
    Case("pieces-drawn", (Prompt(4, 2, sampling=REPEATS), Prompt(1, 4, sampling=DRAWS[2]), Prompt(3, 2)), 8, 3, 4),
)  # fmt: skip

# For engines that verify drafts.
SPECULATION_CASES = (
    # One ends because it is long enough, and has a row in flight that goes on behind that: into its reserve, or a page
    # of somebody else.
    Case("drafts", (Prompt(2, 11), Prompt(3, 8), Prompt(1, 5)), 15, 2, 8, drafts=2),
    # Prompts come in pieces, and a stop token behind a draft.
    Case("pieces-drafted", (Prompt(5, 8), Prompt(1, 9, 5), Prompt(4, 7)), 24, 2, 7, drafts=2),
)

# More batches than the others have, for what an engine does only now and then. Its schedules are too many to explore:
# it is run under each of the fixed policies. A missing wait shows under any.
LONG = Case("long", tuple(Prompt(1 + number % 3, 10 + number % 7) for number in range(24)), 32, 3, 6)

# The one that engines are timed with: wider than the others, with rows and bookkeeping as in the workload `demo`, so
# that kernels take longer than launching them and a host that is waited for shows. As many requests as run at a time,
# with room for all their prompts in the first batch: then nothing but decodes.
DEMO = workload("demo")
WIDE = Case(
    "wide", (Prompt(4, 14),) * DEMO.max_running, DEMO.max_running, DEMO.max_running, DEMO.max_batch_tokens,
    page_size=64, row_pages=1, host_work=DEMO.host_work,
)  # fmt: skip
