"""Drafting from the source: guesses at the next tokens, taken from the text that the pages were drawn from.

The model reads pages, but the runtime knows their text. Where an answer quotes the document, what follows the quoted tokens there is
likely what the model will say next, and one step can check many such guesses at once (prompt lookup decoding; speculative decoding
with a deterministic draft, arXiv:2211.17192). Only tokens that the model itself draws are ever given out, so nothing is lost.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LONGEST_MATCH = 16  # tokens compared behind the end of the answer; beyond, one place is as good as another
SHORTEST_MATCH = 2
PATIENCE = 8  # the longest match that is asked for after drafts that failed
FIRST_DRAFT, LONGEST_DRAFT = 6, 32  # tokens


class Drafter:
    """Drafts for one answer over `source`, the token ids of the document's text.

    It asks for longer matches, and drafts less, after drafts that failed, and the other way round: an answer that does not quote costs a
    few tokens of wasted work in all.
    """

    def __init__(self, source: NDArray[np.int32]) -> None:
        self._source = source
        self._needed = SHORTEST_MATCH
        self._length = FIRST_DRAFT
        self._expected = -1  # where the answer's next token stands if it goes on quoting
        self.drafted = self.accepted = 0  # tokens so far

    def propose(self, answer: Sequence[int], room: int) -> list[int]:
        """At most `room` tokens that may follow `answer`; none when its end does not stand in the source."""
        if room < 1 or len(answer) < self._needed or len(self._source) < 2:
            return []
        ends = np.flatnonzero(self._source[:-1] == answer[-1])
        matched = np.ones(len(ends), np.int64)
        for back in range(1, min(LONGEST_MATCH, len(answer))):
            going = (matched == back) & (ends >= back)
            if not going.any():
                break
            going[going] = self._source[ends[going] - back] == answer[-1 - back]
            matched[going] += 1
        if len(ends) == 0 or matched.max() < self._needed:
            return []
        best = ends[matched == matched.max()] + 1
        # Among equals the place where the answer was quoting, else the first.
        start = self._expected if self._expected in best else int(best[0])
        self._expected = start
        return [int(token) for token in self._source[start : start + min(room, self._length)]]

    def learn(self, drafted: int, accepted: int) -> None:
        """What became of a draft."""
        self.drafted += drafted
        self.accepted += accepted
        self._expected += accepted + 1
        if accepted == drafted:
            self._length = min(LONGEST_DRAFT, 2 * self._length)
            self._needed = max(SHORTEST_MATCH, self._needed - 1)
        elif accepted == 0:
            self._length = max(2, self._length // 2)
            self._needed = min(PATIENCE, self._needed + 1)
