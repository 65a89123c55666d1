"""One question to a server, and what has come of it so far: what both kinds of replies are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from glyph_rt.errors import OptionError
from glyph_rt.quotes import Quoting
from glyph_rt.service.access import Access
from glyph_rt.service.client.errors import ServiceError, carried
from glyph_rt.service.client.flows import Flow, Flows, Give, ReadCallback, Receive
from glyph_rt.v1 import answers_pb2

PlaceCallback = Callable[[int], None]


class Transcript:
    """An answer as it comes in. The question is on its way once this is made."""

    def __init__(self, flows: Flows, request: answers_pb2.AskRequest, on_wait: PlaceCallback | None, progress: ReadCallback | None) -> None:
        self._start: Callable[[], Any] = lambda: flows.stream(flows.answers.Ask, request)
        self._patience, self._on_wait, self._progress = flows.patience(), on_wait, progress
        self._call = self._start()
        self._steps = self._flow()
        self._closed = False
        self._answer: list[str] = []
        self._thoughts: list[str] = []
        self.accepted: answers_pb2.AnswerAccepted | None = None  # known with the first piece
        self.done: answers_pb2.AnswerDone | None = None  # known at the end

    @property
    def thinking(self) -> str:
        """What the model has thought so far, if that was asked for."""
        return "".join(self._thoughts)

    @property
    def said(self) -> str:
        """The answer as the model wrote it, which is what its pieces say, as far as it has come."""
        return "".join(self._answer)

    def close(self) -> None:
        """Stop, if it has not ended."""
        self._closed = True
        self._call.cancel()

    def _text(self) -> str:
        """The answer that has ended, with exact quotes if these were asked for."""
        return self.done.text if self.done is not None and self.done.HasField("text") else self.said

    def _flow(self) -> Flow[answers_pb2.AnswerPiece]:
        while True:
            try:
                while (event := (yield Receive(self._call))) is not None:
                    if (piece := self._take(event)) is not None:
                        yield Give(piece)
            except ServiceError as error:
                # An answer that has begun cannot be repeated: the caller has seen some of it.
                pause = None if self._closed or self._answer or self._thoughts else self._patience.pause(error)
                if pause is None:
                    raise
                yield pause
                if self._closed:
                    raise
                self._call = self._start()
            else:
                return

    def _take(self, event: answers_pb2.AskResponse) -> answers_pb2.AnswerPiece | None:
        kind = event.WhichOneof("event")
        if kind == "waiting" and self._on_wait is not None:
            self._on_wait(event.waiting.place)
        elif kind == "progress" and self._progress is not None:
            self._progress(event.progress)
        elif kind == "accepted":
            self.accepted = event.accepted
        elif kind == "done":
            self.done = event.done
        elif kind == "piece":
            (self._thoughts if is_thought(event.piece) else self._answer).append(event.piece.text)
            return event.piece
        return None


def is_thought(piece: answers_pb2.AnswerPiece) -> bool:
    """Whether the model only noted this for itself."""
    return piece.channel == answers_pb2.ANSWER_CHANNEL_THINKING


R = TypeVar("R", bound=Transcript)


class Asker(Generic[R]):
    """What both clients are: a connection to one server, that questions are asked over.

    Every call raises ServiceError, and OptionError for what no message can carry. timeout_s: of one call; None: the server's cap.
    patience_s: a request that finds no room is repeated, as the server says when, for at most so long; 0: never.
    """

    _reply: type[R]

    def __init__(self, address: str, access: Access | None = None, *, timeout_s: float | None = None, patience_s: float = 0.0) -> None:
        """Raises AddressError for an address that no glyph-rt serves at. Connects with the first call."""
        access = access or Access()
        self._channel = self._open(address, access)
        self._flows = Flows(self._channel, access.metadata, timeout_s, patience_s, self._stream)
        self._documents, self._answers = self._flows.documents, self._flows.answers

    def _open(self, address: str, access: Access) -> Any:
        """The channel."""
        return access.channel(address)

    def _stream(self, call: Any) -> Any:
        """See `Flows`."""
        return call

    def ask(
        self,
        question: str,
        *,
        document: str | None = None,
        text: str | None = None,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        draft: bool = True,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        stop: Sequence[str] = (),
        json_schema: str | None = None,
        regex: str | None = None,
        thinking: bool = False,
        system: str = "",
        after: str = "",
        quotes: Quoting = Quoting.MARK,
        strategy: str = "unspecified",
        on_wait: PlaceCallback | None = None,
        progress: ReadCallback | None = None,
    ) -> R:
        """Ask about a document by its id, or about a text that is read for this question only.

        The options are those of `SamplingOptions` in proto/glyph_rt/v1/answers.proto. json_schema, regex: the form of the answer, at most
        one of them. thinking: also send thoughts. system: what the model is told before a text sent along. after:
        `done.conversation_id` of an answer on the same document that the question refers to. quotes: with EXACT, the reply's text has the
        document's own characters where the model misread what it quotes; either way `done.citations` tells of them. strategy: how a text
        sent along is read, which may then be longer than the model's window: whole, auto, map_reduce or retrieve_pages; `accepted.choice`
        and `done.reading` tell of it. on_wait: told the place in the server's queue, from 1, while it has no room. progress: told how far
        the reading of a text is, with a strategy other than whole; or how much of the document is there again, if it had to go.
        """
        if json_schema is not None and regex is not None:
            raise OptionError("an answer has one form: a JSON schema or a regular expression")
        with carried():
            sampling = answers_pb2.SamplingOptions(
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                seed=seed,
                draft=draft,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                repetition_penalty=repetition_penalty,
                stop=stop,
                json_schema=json_schema,
                regex=regex,
            )
            request = answers_pb2.AskRequest(
                document_id=document,
                text=text,
                question=question,
                sampling=sampling,
                conversation_id=after,
                thinking=thinking,
                system=system,
                quotes=f"QUOTE_MODE_{quotes.upper()}",
                strategy=f"STRATEGY_{strategy.upper()}",
            )
        return self._reply(self._flows, request, on_wait, progress)
