"""Why a token is wrong: what each forward pass was really given, beside what is right."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..preemption import Move
from ..request import Batch, Request
from ..sampling import SamplingRequest
from ..scheduler import Scheduler
from ..speculation import decodes
from .actions import Action
from .cases import Case
from .network import Output
from .oracle import Step
from .race_detector import RaceDetector
from .watchdog import Broken


@dataclass(frozen=True)
class Pass:
    """A forward pass that has run: whose it was, and what lay in its inputs then, as int arrays."""

    number: int  # its place among all
    action: Action  # what queued it
    ids: np.ndarray  # [tokens]
    positions: np.ndarray  # [tokens]
    sampled: np.ndarray  # [samples], the tokens that are sampled behind
    kv_slots: np.ndarray  # [tokens]
    page_table: np.ndarray  # [rows, pages]
    seq_lens: np.ndarray  # [rows]
    starts: np.ndarray  # [rows + 1], where in the tokens each row begins and the last one ends
    tokens: list[int]  # what it has sampled

    def row(self, index: int) -> slice:
        """Where in the tokens that row is."""
        return slice(*self.starts[index : index + 2].tolist())


class Evidence:
    """All passes of a run, and who has written each position of the KV cache."""

    def __init__(self, case: Case, detector: RaceDetector):
        self.case, self.detector = case, detector
        self.right = [[*prompt, *tokens] for prompt, tokens, _ in case.served]  # by request
        self.batches: dict[int, Batch] = {}  # by number, as the next two
        self.pages: dict[int, list[list[int]]] = {}  # those of each row when it was scheduled
        self.passes: dict[int, Pass] = {}  # the newest of each batch
        # By position in the cache: how many passes there were before, which of them has written it with which of its
        # tokens, and whether that has been copied back since. By position in host memory: what was copied there.
        self._written: dict[int, list[tuple[int, Pass, int, bool]]] = defaultdict(list)
        self._kept: dict[tuple[int, int], tuple[Pass, int] | None] = {}
        self._moving: set[tuple[str, int]] = set()  # requests and pages that are to be copied back
        self.foreign: Broken | None = None  # the first batch that writes to a page of somebody else's
        self._counts: dict[int, np.ndarray] = {}  # by batch number: those that each row was drawn with
        self._count = 0

    # --- what there is to know of a run ---

    def scheduled(self, batch: Batch) -> None:
        """There is a new batch."""
        self.batches[batch.number] = batch
        self.pages[batch.number] = [list(row.request.pages) for row in batch.rows]

    def moving(self, scheduler: Scheduler) -> None:
        """There is a new schedule, and with it what is to be copied."""
        for move in scheduler.moves.back if scheduler.moves else ():
            (request,) = (request for request in scheduler.running if request.berth == move.berth)
            self._moving.update((request.id, page) for page in move.pages)

    def copied_out(self, move: Move) -> None:
        """Pages have been copied to host memory."""
        for index, place in enumerate(self._places(move)):
            entries = self._written[place]
            self._kept[move.berth, index] = entries[-1][1:3] if entries else None

    def copied_back(self, move: Move) -> None:
        """Pages have been copied back to the cache."""
        for index, place in enumerate(self._places(move)):
            if kept := self._kept.get((move.berth, index)):
                self._written[place].append((self._count, *kept, True))

    def _places(self, move: Move) -> list[int]:
        size = self.case.page_size
        return [page * size + offset for page in move.pages for offset in range(size)]

    def ran(self, ids: torch.Tensor, positions: torch.Tensor, sampled: torch.Tensor, batch, output: Output) -> None:
        """The network has run, as part of the device work that the race detector looks at."""
        arrays = (each.numpy().copy() for each in (ids, positions, sampled, *batch[:4]))
        made = Pass(self._count, self.detector.running, *arrays, output.logits[0].numpy().argmax(-1).tolist())
        self.passes[made.action.batch_number] = made
        for token, place in enumerate(made.kv_slots.tolist()):
            self._written[place].append((self._count, made, token, False))
        self._count += 1
        self._look_at_owners(made)

    def _look_at_owners(self, made: Pass) -> None:
        """Whether each row writes to pages that were its request's when the batch was scheduled. Streams may run in
        order, and no token be wrong yet."""
        number = made.action.batch_number
        batch, held = self.batches.get(number), self.pages.get(number)
        if batch is None or batch.width == 1 or self.foreign:
            return
        for index, (row, pages) in enumerate(zip(batch.rows, held, strict=True)):
            tokens = made.row(index)
            for position, place in zip(made.positions[tokens], made.kv_slots[tokens], strict=True):
                if (page := place // self.case.page_size) not in pages:
                    others = [each.request.id for each, mine in zip(batch.rows, held, strict=True) if page in mine]
                    whose = f"is request {others[0]}'s" if others else "it has not been given"
                    which = f"position {position} of request {row.request.id} to page {page}, which {whose}"
                    self.foreign = Broken(f"batch {number} writes {which}", number)
                    return

    def drew(self, settings: torch.Tensor, counts: torch.Tensor) -> None:
        """Rows have been drawn, by these settings and counts (sampler.choose), as part of the device work."""
        owners = settings.numpy()[:, 0]
        self._counts[self.detector.running.batch_number] = counts.numpy()[:, owners].copy()

    # --- what is made of it ---

    def why(self, batch: Batch, index: int, token: int, place: int, first: int) -> str | None:
        """What has made a batch's token wrong, as far as its inputs, its cache or its way home say that.

        Args:
            index: of the row among those that sample.
            token: what `update` was given.
            place: of the token among those that its request has generated; `first`: of the first that the row gave.
        """
        number, row = batch.number, batch.sampled[index]
        request, start, length, _ = batch.rows[row]
        if guessed := batch.width > 1 and decodes(batch.rows[row]):
            start = request.prompt_len + first - 1  # where it was; the host has counted all drafts
        made = self.passes.get(number)
        if made is None:
            return f"no forward pass of batch {number} had run by then"
        if row >= (rows := len(made.seq_lens)):
            return f"the forward pass of batch {number} ran for {rows} rows, and request {request.id} has row {row}"
        if not guessed and (sampled := start + length - request.prompt_len) != place:
            return (
                f"it is token number {sampled + 1} of request {request.id} once more: that was in flight when it gave "
                "way, and was computed again all the same"
            )
        return (
            self._inputs(made, row, request, start, length, 1 if guessed else length)
            or self._cache(made, row, request, start + (1 + place - first if guessed else length))
            or (self._way_home(made, index, token) if _likeliest(request) else self._counted(batch, index))
        )

    def _inputs(self, made: Pass, row: int, request: Request, start: int, length: int, known: int) -> str | None:
        """What of its row's inputs is not what the batch says. Behind the first `known` of its tokens are drafts."""
        id, number = request.id, made.action.batch_number
        ids, positions = made.ids[made.row(row)].tolist(), made.positions[made.row(row)].tolist()
        if not positions:
            return f"there was nothing in the slot for request {id} yet"
        if positions != list(due := range(start, start + length)):
            return f"request {id} was computed at {_span(positions)}; in batch {number} it is at {_span(due)}"
        for position, found, right in zip(positions[:known], ids, self.right[int(id)][start:], strict=False):
            if found == 0 != right and position >= request.prompt_len:
                return f"request {id} starts from 0, the placeholder: nothing carried its token over"
            if found != right:
                return f"request {id} starts from token {found}{self._whose(number - 1, found)}; right is {right}"
        needed = -(-(start + length) // self.case.page_size)
        pages, table = self.pages[number][row][:needed], made.page_table[row, :needed].tolist()
        if len(pages) < needed:
            return f"request {id} needs {needed} pages and has {len(pages)}: they were given back while it was running"
        if table != pages:
            return f"request {id} has pages {_list(pages)}, and its row of the page table pages {_list(table)}"
        return None

    def _cache(self, made: Pass, row: int, request: Request, end: int) -> str | None:
        """Which of the positions of a row, before `end`, holds something else, and who has written that."""
        size, pages, id = self.case.page_size, self.pages[made.action.batch_number][row], request.id
        for position in range(end):
            page = pages[position // size]
            writers = [each for each in self._written[page * size + position % size] if each[0] <= made.number]
            if (id, page) in self._moving and not any(back for *_, back in writers):
                return f"page {page} of request {id} was not back from host memory"
            if not writers:
                return f"nobody has written position {position} of request {id}, in its page {page}"
            _, writer, token, _ = writers[-1]
            number = writer.action.batch_number
            rows = self.batches[number].rows if number in self.batches else []
            index = int(np.searchsorted(writer.starts, token, "right")) - 1
            if index >= len(rows):
                return (
                    f"page {page} of request {id} was written in batch {number} by a row that the batch has not: what "
                    "an older one had left in the slot"
                )
            if (other := rows[index].request) is not request:
                return f"page {page} of request {id} was written by request {other.id} in batch {number}"
        return None

    def _way_home(self, made: Pass, index: int, token: int) -> str | None:
        """What has become of a token that was sampled right."""
        tokens, number = made.tokens, made.action.batch_number
        if len(tokens) != len(self.batches[number].sampled):
            return None  # several tokens a row
        if index >= len(tokens) or tokens[index] == token:
            return None
        whose = self._whose(number, token) or self._whose(number - 1, token)
        return f"the GPU has sampled {tokens[index]} for it; what came to the host is another token{whose}"

    def _counted(self, batch: Batch, index: int) -> str | None:
        """Which token a row's counts have not as often as its request."""
        if batch.number not in self._counts or not self._counts[batch.number].size:
            return None
        request, start, length, _ = batch.rows[batch.sampled[index]]
        tokens = self.right[int(request.id)][: start + length]
        parts = {"prompt": tokens[: request.prompt_len], "answer": tokens[request.prompt_len :]}
        for (name, part), counts in zip(parts.items(), self._counts[batch.number][:, index], strict=True):
            right = np.bincount(part, minlength=len(counts))
            for token in np.flatnonzero(counts != right)[:1]:
                which = "0, the placeholder," if token == 0 and name == "answer" else f"token {token}"
                what = f"counted {_times(counts[token])} in its {name}; right is {_times(right[token])}"
                return f"request {request.id} was drawn with {which} {what}"
        return None

    def stale(self, batch: Batch, index: int, step: Step) -> str | None:
        """What a row, by its index among those that sample, was given as drafts in place of those it is to verify."""
        made, row = self.passes.get(batch.number), batch.sampled[index]
        if made is None or row + 1 >= len(made.starts):
            return None
        found = made.ids[made.row(row)].tolist()[1:]
        if found == step.drafts:
            return None
        id, due = batch.rows[row].request.id, _list(step.drafts)
        return f"request {id} was given drafts {_list(found)}; behind the same tokens there were {due}"

    def _whose(self, number: int, token: int) -> str:
        """Whose token of a batch that is, if it can be told."""
        made, batch = self.passes.get(number), self.batches.get(number)
        if made is None or batch is None:
            return ""
        owners = [row for row, each in zip(batch.sampled, made.tokens, strict=False) if each == token]
        return f", that of request {batch.rows[owners[0]].request.id} in batch {number}" if len(owners) == 1 else ""

    def notes(self) -> dict[int, str]:
        """What was in each forward pass, by the number of its action: the tokens that rows start from, and what was
        sampled behind them."""
        notes = {}
        for made in self.passes.values():
            batch, told = self.batches.get(made.action.batch_number), []
            sampled = dict(zip(made.sampled.tolist(), made.tokens, strict=True))
            for row, first, end in zip(batch.rows if batch else (), made.starts, made.starts[1:], strict=False):
                known = end - 1 in sampled and _likeliest(row.request)
                behind = f" -> {sampled[end - 1]}" if known else ""
                told.append(f"{row.request.id}: {' '.join(map(str, made.ids[first:end]))}{behind}")
            notes[made.action.number] = "; ".join(told)
        return notes


def _likeliest(request: Request) -> bool:
    """Whether the token that it gets is the one with the highest score: not with a grammar, or as it may ask for."""
    if isinstance(request, SamplingRequest):
        return request.sampling.greedy
    return type(request) is Request and request.matcher is None


def _times(count: int) -> str:
    return ("not at all", "once", "twice")[count] if count < 3 else f"{count} times"


def _span(places: Sequence[int]) -> str:
    return f"position {places[0]}" if len(places) == 1 else f"positions {places[0]} to {places[-1]}"


def _list(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
