"""What to do when a device refuses a read: find the tags to blame, bring all others, and learn from it.

    whole read refused -> halves of its tags, as often as it takes
        one tag left, refused                    its registers are refused: a hole
        both halves answered, space between      that space must not be crossed: a hole
        both halves answered, no space between   the whole was larger than the device's largest read, or, where it
                                                 answered one as large, a border that must not be crossed

Nothing is learnt from a cycle in which the device answered nothing at all: it may be starting up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from drivers.blocks import Block
from drivers.errors import SILENCES, DriverError, IllegalAddress, Silence
from drivers.link import Reader
from drivers.points import READ_CODES, Function, Hole
from gateway.acquire.device import DevicePlan, Due
from gateway.acquire.memory import Learnt, in_order
from gateway.acquire.sink import Sink
from gateway.model.frame import Read

ILLEGAL_VALUE: Final = 3  # Modbus application protocol, section 7: above all a quantity that is too large
MAX_ROUNDS: Final = 8  # new plans tried in one cycle; each forbids what the last one was refused for
FUNCTIONS: Final[dict[int, Function]] = {code: function for function, code in READ_CODES.items()}


@dataclass(frozen=True, slots=True)
class _Join:
    """Both halves were answered and the whole was not; `code` is the exception that it earned."""

    whole: Read
    left: Read
    right: Read
    code: int


class Surgery:
    """One cycle of a device that refused something.

    missed  why the rest was not asked any more: nobody was there; None while somebody is
    """

    def __init__(self, reader: Reader, plan: DevicePlan, sink: Sink, good: list[Read]) -> None:
        """Begin with what the device has answered in this cycle; what it answers from now on is added to `good`."""
        self.missed: Silence | None = None
        self._reader = reader
        self._plan = plan
        self._sink = sink
        self._good = good
        self._answered = [read.block for read in good]
        self._blamed: list[Read] = []
        self._joins: list[_Join] = []

    @property
    def has_answers(self) -> bool:
        """Whether the device has answered anything in this cycle."""
        return bool(self._answered)

    async def operate(self, due: Due, refused: list[tuple[Read, int]]) -> None:
        """Bring every tag of refused reads that can be brought, and learn, until a plan is known to be answered.

        due      what was asked in this cycle
        refused  reads and the exception codes that they earned
        """
        for _ in range(MAX_ROUNDS):
            for read, code in refused:
                await self._divide(read, code)
            joins = list(self._joins)
            if self._answered:
                self._plan.learn(await self._lesson())
            if self.missed or not joins:
                return
            refused = await self._try_new_plan(due)
            if not refused:
                return

    async def _divide(self, read: Read, code: int) -> None:
        """Ask the halves of a refused read."""
        halves = self._plan.halves(read)
        if not halves:
            self._sink.fail(read, IllegalAddress.quality)
            self._blamed.append(read)
            return
        left, right = halves
        answered = [await self._half(left, read.block, code), await self._half(right, read.block, code)]
        if all(answered):
            self._joins.append(_Join(read, left, right, code))

    async def _half(self, half: Read, refused: Block, code: int) -> bool:
        """Bring one half, or part of it; returns whether it was answered whole."""
        again = code if half.block == refused else await self._ask(half)
        if again:
            await self._divide(half, again)
        return again == 0

    async def _ask(self, read: Read) -> int | None:
        """Ask and hand on; returns 0 if it was answered, the code if it was refused, None if it failed otherwise."""
        if self.missed:
            self._sink.fail(read, self.missed.quality)
            return None
        try:
            payload = await self._reader.read(self._plan.device.unit, read.block)
        except IllegalAddress as error:
            return error.code
        except SILENCES as error:
            self.missed = error
            self._sink.fail(read, error.quality)
        except DriverError as error:
            self._sink.fail(read, error.quality)
        else:
            self._sink.put(read, payload)
            self._good.append(read)
            self._answered.append(read.block)
            return 0
        return None

    async def _try_new_plan(self, due: Due) -> list[tuple[Read, int]]:
        """Ask what the new plan would, where no answer of this cycle proves it; returns what was refused again."""
        refused = []
        for read in self._plan.due(due.mask).reads:
            is_known = read.is_once or any(_holds(block, read.block) for block in self._answered)
            if not is_known and (code := await self._ask(read)):
                refused.append((read, code))
        return refused

    async def _lesson(self) -> Learnt:
        """Return what is known of the device with what this round has shown."""
        learnt = self._plan.learnt
        found = [_hole(read.block, read.block.start, read.block.end) for read in self._blamed]
        too_large = []
        for join in self._joins:
            if hole := self._seam(join):
                found.append(hole)
            else:
                too_large.append(join)
        self._blamed, self._joins = [], []
        for is_bits in (False, True):
            of_kind = [join for join in too_large if (join.whole.block.item_bytes == 0) == is_bits]
            if of_kind:
                smallest = min(of_kind, key=lambda join: join.whole.block.n_bytes)
                learnt = await self._limit(learnt, smallest.whole)
        return replace(learnt, refused=in_order((*learnt.refused, *found)))

    def _seam(self, join: _Join) -> Hole | None:
        """Return what no read may contain because of a join; None where the whole may have been too large."""
        whole, end, start = join.whole.block, join.left.block.end, join.right.block.start
        is_proven = self._largest(whole) >= whole.count
        if start > end and (is_proven or join.code != ILLEGAL_VALUE):
            return _hole(whole, end, start)
        if not is_proven:
            return None
        return _hole(whole, start - 1, start + 1) if start == end else _hole(whole, whole.start, whole.end)

    def _largest(self, like: Block) -> int:
        """Return the addresses of the largest read of a kind that was answered in this cycle."""
        kind = like.item_bytes
        return max((block.count for block in self._answered if block.item_bytes == kind), default=0)

    async def _limit(self, learnt: Learnt, refused: Read) -> Learnt:
        """Return the largest read that the device answers: sought between one that it did and this one, by halves."""
        block, largest = refused.block, self._largest(refused.block)
        counts = [end - block.start for end in self._plan.ends(refused)]
        counts = [count for count in counts if largest < count < block.count]
        while counts and not self.missed:
            middle = len(counts) // 2
            if await self._is_answered(Block(block.function, block.start, counts[middle], block.item_bytes)):
                largest, counts = counts[middle], counts[middle + 1 :]
            else:
                counts = counts[:middle]
        if block.item_bytes == 0:
            return replace(learnt, max_bits=largest)
        return replace(learnt, max_registers=largest * block.item_bytes // 2)

    async def _is_answered(self, block: Block) -> bool:
        try:
            await self._reader.read(self._plan.device.unit, block)
        except SILENCES as error:
            self.missed = error
            return False
        except DriverError:
            return False
        self._answered.append(block)
        return True


def _hole(like: Block, start: int, end: int) -> Hole:
    return Hole(FUNCTIONS[like.function], start, end - start)


def _holds(block: Block, other: Block) -> bool:
    same = (block.function, block.item_bytes) == (other.function, other.item_bytes)
    return same and block.start <= other.start and other.end <= block.end
