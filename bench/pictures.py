"""The pictures of a report: lines of throughput, distributions of latency, cost of a message by process.

Owns how they look. Needs matplotlib, which the extra ``bench`` brings.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas

Found = Sequence[Mapping[str, Any]]

mpl.rcParams.update({"svg.fonttype": "none", "axes.grid": True, "grid.alpha": 0.3, "font.size": 9})


def draw(directory: Path, found: Found) -> list[Path]:
    """Draw all that there is to draw; the files, in their order."""
    return [*_lines(directory, found), *_distributions(directory, found), *_costs(directory, found)]


def _canvas() -> tuple[Canvas, Any]:
    canvas = Canvas(figsize=(7, 4), layout="constrained")
    return canvas, canvas.subplots()


def _save(canvas: Canvas, file: Path) -> Path:
    canvas.savefig(file)
    return file


def _lines(directory: Path, found: Found) -> list[Path]:
    pictures = defaultdict(list)
    for document in found:
        for line in document["series"]:
            pictures[line["picture"]].append(line)
    out = []
    for name, lines in pictures.items():
        canvas, axes = _canvas()
        for line in lines:
            axes.plot(*zip(*line["points"], strict=True), marker="o", label=line["label"])
        axes.set(title=lines[0]["title"], xlabel=lines[0]["x"], ylabel=lines[0]["y"])
        if lines[0]["logarithmic"]:
            axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.legend()
        out.append(_save(canvas, directory / f"{name}.svg"))
    return out


def _distributions(directory: Path, found: Found) -> list[Path]:
    """How many per cent of the messages took at most so long."""
    out = []
    for document in found:
        if document["distributions"]:
            canvas, axes = _canvas()
            for label, values in document["distributions"].items():
                ordered = sorted(values)
                axes.plot(ordered, [100 * (place + 1) / len(ordered) for place in range(len(ordered))], label=label)
            title = f"{document['number']} {document['name']}: how long one takes"
            axes.set(title=title, xlabel="milliseconds", ylabel="% of all took at most so long", xscale="log")
            axes.legend()
            out.append(_save(canvas, directory / f"latency-{document['name']}.svg"))
    return out


def _costs(directory: Path, found: Found) -> list[Path]:
    """Processor time of one message, by process."""
    out = []
    for document in found:
        if document["costs"]:
            canvas, axes = _canvas()
            names = [cost["process"] for cost in document["costs"]]
            axes.barh(names, [cost["cpu"] for cost in document["costs"]])
            axes.invert_yaxis()
            axes.set(title=f"{document['number']} {document['name']}: cost of one message", xlabel="µs of a processor")
            out.append(_save(canvas, directory / f"cost-{document['name']}.svg"))
    return out
