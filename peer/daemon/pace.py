"""How fast this peer works."""

_WINDOW_S = 10.0


class Pace:
    """How fast this peer gathers loss terms, smoothed over ten seconds of work."""

    def __init__(self) -> None:
        self._rate = 0.0
        self._weight, self._since_s = 0, 0.0

    def begin(self, weight: int, now_s: float) -> None:
        """Note that work begins with `weight` gathered already."""
        self._weight, self._since_s = weight, now_s

    def rate(self, weight: int, now_s: float) -> float:
        """Return loss terms a second, now that `weight` is gathered."""
        seconds = now_s - self._since_s
        if weight > self._weight and seconds > 0.0:
            fresh = (weight - self._weight) / seconds
            share = min(1.0, seconds / _WINDOW_S) if self._rate else 1.0
            self._rate += (fresh - self._rate) * share
            self.begin(weight, now_s)
        return self._rate
