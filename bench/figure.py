"""What a figure is, and what comes out of taking it.

Owns `Figure` (name, bar, dream, how it is taken), `Goal`, `Reading`, `Cost` and `Series`, and `Run`, through which a
figure says what it measured. Must not know any single figure.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from dropr_core.bench.samples import Samples, say_number
from dropr_core.bench.usage import Usage


class Skipped(Exception):
    """This figure cannot be taken here; the text says why."""


@attrs.frozen
class Goal:
    """What a reading should reach."""

    bar: float
    dream: float | None = None
    least: bool = True
    """Whether more is better."""

    def verdict(self, value: float) -> str:
        """``dream``, ``reached`` or ``missed``."""
        if self.dream is not None and self._met(value, self.dream):
            return "dream"
        return "reached" if self._met(value, self.bar) else "missed"

    def _met(self, value: float, wanted: float) -> bool:
        return value >= wanted if self.least else value <= wanted


def at_least(bar: float, dream: float | None = None) -> Goal:
    """More is better."""
    return Goal(bar, dream, least=True)


def at_most(bar: float, dream: float | None = None) -> Goal:
    """Less is better."""
    return Goal(bar, dream, least=False)


@attrs.frozen
class Cost:
    """What one process used for one message."""

    process: str
    cpu: float
    """Microseconds of a processor."""
    peak: float
    """The most memory it ever had, MiB."""
    written: float
    """Bytes that went to the disk."""
    switches: float
    calls: float | None = None
    """System calls of all kinds; None where nothing could count them."""
    syncs: float | None = None
    """fsync, fdatasync, msync, sync_file_range; None where nothing could count them."""


@attrs.frozen
class Reading:
    """One line of a figure: what was measured, several times, and the raw limit of the same rounds beside it."""

    label: str
    unit: str
    samples: Samples
    goal: Goal | None = None
    raw: Samples | None = None
    raw_label: str = ""

    @property
    def verdict(self) -> str:
        """How it stands to its goal; empty without one."""
        return "" if self.goal is None else self.goal.verdict(self.samples.median)

    def __str__(self) -> str:
        return f"{say_number(self.samples.median)} {self.unit} ±{self.samples.spread / 2:.0%}"


@attrs.frozen
class Series:
    """The line of a picture: points of ``x`` and ``y``."""

    picture: str
    """The name of the picture's file; lines with the same are drawn together."""
    title: str
    x: str
    y: str
    label: str
    points: Sequence[tuple[float, float]]
    logarithmic: bool = True
    """Whether x grows by factors."""


@attrs.define(slots=False)
class Run:
    """One taking of one figure: where it may write, how much it shall do, and what it found."""

    home: Path
    """A directory of its own on the disk that is measured; removed afterwards."""
    rounds: int = 5
    """How often each thing is measured, after a warm-up."""
    scale: float = 1.0
    """Share of the usual work: 1, or little where only the machinery is tried."""
    big: bool = False
    """Whether that which takes many minutes was asked for."""
    storages: Sequence[str] = ("sqlite", "fs")
    transports: Sequence[str] = ("curl", "zmq")
    readings: list[Reading] = attrs.field(factory=list)
    costs: list[Cost] = attrs.field(factory=list)
    series: list[Series] = attrs.field(factory=list)
    distributions: dict[str, list[float]] = attrs.field(factory=dict)
    notes: list[str] = attrs.field(factory=list)

    def directory(self, name: str = "") -> Path:
        """A new empty directory."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.home))

    def count(self, number: int, least: int = 1) -> int:
        """``number`` of something, by the scale of this run."""
        return max(least, int(number * self.scale))

    def seconds(self, number: float) -> float:
        """So long, by the scale of this run."""
        return number * min(1.0, max(self.scale, 0.02))

    def read(
        self, label: str, unit: str, values: Samples | Sequence[float] | float, goal: Goal | None = None, *,
        raw: Samples | None = None, raw_label: str = "",
    ) -> Reading:  # fmt: skip
        """Note a reading. ``values``: one for each round; ``raw``: the raw limit in the same rounds."""
        samples = values if isinstance(values, Samples) else Samples([values] if isinstance(values, float) else values)
        reading = Reading(label, unit, samples, goal, raw, raw_label)
        self.readings.append(reading)
        return reading

    def cost(self, process: str, used: Usage, messages: int, **more: float) -> None:
        """Note what a process used for so many messages."""
        self.costs.append(
            Cost(process, used.cpu / messages * 1e6, used.peak / 2**20, used.written / messages,
                 used.switches / messages, **more)
        )  # fmt: skip

    def draw(self, series: Series) -> None:
        """Have a line drawn."""
        self.series.append(series)

    def distribution(self, label: str, milliseconds: Sequence[float]) -> None:
        """Have a distribution of latencies drawn."""
        self.distributions[label] = list(milliseconds)

    def note(self, text: str) -> None:
        """Say something that a reader of the figure must know."""
        self.notes.append(text)


@attrs.frozen
class Figure:
    """One figure: what it is, what it should be, and the function that takes it."""

    number: str
    """As in docs/performance.md; two figures never share one. Others than P1 to P24 stand after them in the table."""
    name: str
    """As ``make bench FIGURES=name`` has it."""
    what: str
    """One sentence: what is measured."""
    bar: str
    dream: str
    how: str
    """How it is taken, and what the raw limit beside it is: one who doubts the figure can do it again."""
    measure: Callable[[Run], None] | None
    """None: it is not taken by this bench; ``how`` says where it is."""
    seconds: float = 20.0
    """About how long it takes; it is ended after three times that, and a minute."""
    only_if_named: bool = False
    """Whether it is left out unless somebody names it: what takes many minutes."""


Document = Mapping[str, Any]
"""A figure with what came of it, as JSON has it."""


def as_document(figure: Figure, run: Run | None, *, seconds: float = 0.0, problem: str = "") -> dict[str, Any]:
    """Everything about one figure, for JSON. ``problem``: why there is nothing, or not all."""
    readings = [] if run is None else [
        {
            "label": one.label, "unit": one.unit, "median": one.samples.median, "spread": one.samples.spread,
            "values": list(one.samples.values), "verdict": one.verdict, "text": str(one),
            "bar": one.goal.bar if one.goal else None, "dream": one.goal.dream if one.goal else None,
            "raw": None if one.raw is None else {
                "label": one.raw_label, "median": one.raw.median, "spread": one.raw.spread,
                "values": list(one.raw.values),
            },
        }
        for one in run.readings
    ]  # fmt: skip
    return {
        "number": figure.number, "name": figure.name, "what": figure.what, "bar": figure.bar, "dream": figure.dream,
        "how": figure.how, "seconds": round(seconds, 1), "problem": problem, "readings": readings,
        "costs": [] if run is None else [attrs.asdict(cost) for cost in run.costs],
        "series": [] if run is None else [attrs.asdict(line) for line in run.series],
        "distributions": {} if run is None else run.distributions,
        "notes": [] if run is None else run.notes,
    }  # fmt: skip
