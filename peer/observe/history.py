"""How the run went at this peer: curves over all of its epochs, in a bounded room.

A curve that is full holds half as many points from then on, each the mean of twice as many values:
it never forgets its beginning, and only its grain gets coarser. A rollback, a branch that was left
and work that is done again take the curves back, too: they show how the present state came to be.
Nothing here reads or writes files.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationError

from peer.config.section import Section

CAPACITY = 480
"""Points of a curve: about as many as a chart has pixels for."""


@dataclasses.dataclass(frozen=True)
class Point:
    """The mean of the values up to `epoch` since the point before."""

    epoch: int
    mean: float
    count: int


class Curve:
    """Values by epoch, downsampled to at most `CAPACITY` points; their epochs rise strictly."""

    def __init__(self, stride: int = 1, points: tuple[Point, ...] = ()) -> None:
        self.stride = stride
        self.points = list(points)

    def add(self, epoch: int, value: float) -> None:
        """Take in the `value` at `epoch`; what was known of that epoch and later ones is void.

        A value that is not finite is left out: no chart could show it.
        """
        if not math.isfinite(value):
            return
        self.back_to(epoch - 1)
        if self.points and self.points[-1].count < self.stride:
            self.points[-1] = _merged(self.points[-1], Point(epoch, value, 1))
            return
        self.points.append(Point(epoch, value, 1))
        if len(self.points) > CAPACITY:
            self.stride *= 2
            pairs = [self.points[i : i + 2] for i in range(0, len(self.points), 2)]
            self.points = [_merged(*pair) if len(pair) > 1 else pair[0] for pair in pairs]

    def back_to(self, epoch: int) -> None:
        """Forget what came after `epoch`."""
        while self.points and self.points[-1].epoch > epoch:
            self.points.pop()

    def shown(self) -> list[list[float]]:
        """Return the points as `[epoch, mean]`, first to last."""
        return [[point.epoch, point.mean] for point in self.points]


class History:
    """The curves of one run.

    Attributes:
        loss: Training loss of this peer's contributions, in nats.
        heldout: The score on held-out data.
        group: Peers in the group of the epoch.
    """

    def __init__(
        self, loss: Curve | None = None, heldout: Curve | None = None, group: Curve | None = None
    ) -> None:
        self.loss = loss or Curve()
        self.heldout = heldout or Curve()
        self.group = group or Curve()

    @property
    def curves(self) -> dict[str, Curve]:
        """The curves by name."""
        return {"loss": self.loss, "heldout": self.heldout, "group": self.group}

    def back_to(self, epoch: int) -> None:
        """Forget what came after `epoch`, of which the state knows nothing any more."""
        for curve in self.curves.values():
            curve.back_to(epoch)

    def shown(self) -> dict[str, list[list[float]]]:
        """Return every curve's points as `[epoch, mean]`."""
        return {name: curve.shown() for name, curve in self.curves.items()}

    def to_json(self, run_id: str) -> dict[str, Any]:
        """Return all of it, in the form that `from_json` reads."""
        return {
            "run_id": run_id,
            "curves": {
                name: {
                    "stride": curve.stride,
                    "points": [[point.epoch, point.mean, point.count] for point in curve.points],
                }
                for name, curve in self.curves.items()
            },
        }

    @classmethod
    def from_json(cls, body: object, run_id: str) -> "History":
        """Return the history of the run `run_id` that `body` holds.

        Raises:
            ValueError: It holds that of another run, or no history.
        """
        try:
            kept = _Kept.model_validate(body)
        except ValidationError as error:
            raise ValueError(f"no history: {error.errors()[0]['msg']}") from error
        if kept.run_id != run_id:
            raise ValueError(f"the history of {kept.run_id}, not of {run_id}")
        return cls(**_curves(kept.curves))


_Epoch = Annotated[int, Field(ge=0, le=2**53)]
_Count = Annotated[int, Field(ge=1, le=2**40)]
_Mean = Annotated[float, Field(allow_inf_nan=False)]


class _KeptCurve(Section):
    stride: _Count
    points: Annotated[tuple[tuple[_Epoch, _Mean, _Count], ...], Field(max_length=CAPACITY)]


class _Kept(Section):
    run_id: str
    curves: dict[str, _KeptCurve]


def _curves(kept: Mapping[str, _KeptCurve]) -> dict[str, Curve]:
    curves = {}
    for name in History().curves.keys() & kept.keys():
        points = tuple(Point(*point) for point in kept[name].points)
        if any(b.epoch <= a.epoch for a, b in itertools.pairwise(points)):
            raise ValueError(f"no history: the epochs of {name} do not rise")
        curves[name] = Curve(kept[name].stride, points)
    return curves


def _merged(first: Point, second: Point) -> Point:
    count = first.count + second.count
    share = second.count / count
    # Not the sum of both, which could be beyond all numbers.
    mean = first.mean * (1.0 - share) + second.mean * share
    return Point(second.epoch, mean, count)
