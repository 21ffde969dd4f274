"""Where the state that trains comes from: what the next checkpoint will say of its parent."""

from collections.abc import Mapping

from peer.checkpoint.annotation import Ancestor, Heritage, finite_scores
from peer.training.certificate import Certificate


class Descent:
    """Follows a state from the checkpoint that it was loaded from to the next one written.

    Where there is no such checkpoint, the first certificate on the way names the state that takes
    its place: the run's initial state, or the one before that which was fetched.

    Args:
        parent: The checkpoint that was loaded, if one was.
    """

    def __init__(self, parent: Ancestor | None) -> None:
        self._parent = parent
        self._loss_terms = 0
        self._scores: dict[str, float] = {}
        self._scored_epoch = -1

    def advance(self, certificate: Certificate) -> None:
        """Note the certificate that led to the next epoch."""
        base = certificate.vote.base
        if self._parent is None:
            self._parent = Ancestor(base.epoch, base.state_root)
        self._loss_terms += certificate.vote.weight

    def restart(self, led_by: Certificate | None) -> None:
        """Note that another state took this one's place, and what led there if it is known."""
        self._parent, self._loss_terms, self._scored_epoch = None, 0, -1
        if led_by is not None:
            self.advance(led_by)

    def scored(self, epoch: int, scores: Mapping[str, float]) -> None:
        """Note how good the state of `epoch` is."""
        self._scores, self._scored_epoch = finite_scores(scores), epoch

    def heritage(self, epoch: int) -> Heritage:
        """Return what a checkpoint of the present state, at `epoch`, has to say of itself."""
        scores = self._scores if self._scored_epoch == epoch else {}
        if self._parent is not None and self._parent.epoch == epoch:
            return Heritage(scores=scores)  # nothing happened since it was loaded
        return Heritage(parent=self._parent, loss_terms=self._loss_terms, scores=scores)

    def saved(self, saved: Ancestor) -> None:
        """Note that the present state was written: it is the next one's parent."""
        self._parent, self._loss_terms = saved, 0
