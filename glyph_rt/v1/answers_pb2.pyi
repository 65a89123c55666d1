from glyph_rt.v1 import documents_pb2 as _documents_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Strategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STRATEGY_UNSPECIFIED: _ClassVar[Strategy]
    STRATEGY_WHOLE: _ClassVar[Strategy]
    STRATEGY_AUTO: _ClassVar[Strategy]
    STRATEGY_MAP_REDUCE: _ClassVar[Strategy]
    STRATEGY_RETRIEVE_PAGES: _ClassVar[Strategy]

class QuoteMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUOTE_MODE_UNSPECIFIED: _ClassVar[QuoteMode]
    QUOTE_MODE_MARK: _ClassVar[QuoteMode]
    QUOTE_MODE_EXACT: _ClassVar[QuoteMode]

class AnswerChannel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ANSWER_CHANNEL_UNSPECIFIED: _ClassVar[AnswerChannel]
    ANSWER_CHANNEL_ANSWER: _ClassVar[AnswerChannel]
    ANSWER_CHANNEL_THINKING: _ClassVar[AnswerChannel]

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]

class CitationKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CITATION_KIND_UNSPECIFIED: _ClassVar[CitationKind]
    CITATION_KIND_VERBATIM: _ClassVar[CitationKind]
    CITATION_KIND_MISREAD: _ClassVar[CitationKind]
    CITATION_KIND_AMBIGUOUS: _ClassVar[CitationKind]
STRATEGY_UNSPECIFIED: Strategy
STRATEGY_WHOLE: Strategy
STRATEGY_AUTO: Strategy
STRATEGY_MAP_REDUCE: Strategy
STRATEGY_RETRIEVE_PAGES: Strategy
QUOTE_MODE_UNSPECIFIED: QuoteMode
QUOTE_MODE_MARK: QuoteMode
QUOTE_MODE_EXACT: QuoteMode
ANSWER_CHANNEL_UNSPECIFIED: AnswerChannel
ANSWER_CHANNEL_ANSWER: AnswerChannel
ANSWER_CHANNEL_THINKING: AnswerChannel
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_LENGTH: FinishReason
CITATION_KIND_UNSPECIFIED: CitationKind
CITATION_KIND_VERBATIM: CitationKind
CITATION_KIND_MISREAD: CitationKind
CITATION_KIND_AMBIGUOUS: CitationKind

class AskRequest(_message.Message):
    __slots__ = ("document_id", "text", "question", "sampling", "conversation_id", "thinking", "system", "quotes", "strategy")
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    THINKING_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_FIELD_NUMBER: _ClassVar[int]
    QUOTES_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    document_id: str
    text: str
    question: str
    sampling: SamplingOptions
    conversation_id: str
    thinking: bool
    system: str
    quotes: QuoteMode
    strategy: Strategy
    def __init__(self, document_id: _Optional[str] = ..., text: _Optional[str] = ..., question: _Optional[str] = ..., sampling: _Optional[_Union[SamplingOptions, _Mapping]] = ..., conversation_id: _Optional[str] = ..., thinking: _Optional[bool] = ..., system: _Optional[str] = ..., quotes: _Optional[_Union[QuoteMode, str]] = ..., strategy: _Optional[_Union[Strategy, str]] = ...) -> None: ...

class SamplingOptions(_message.Message):
    __slots__ = ("max_new_tokens", "temperature", "seed", "draft", "top_k", "top_p", "min_p", "repetition_penalty", "stop", "json_schema", "regex")
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    MIN_P_FIELD_NUMBER: _ClassVar[int]
    REPETITION_PENALTY_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    JSON_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    REGEX_FIELD_NUMBER: _ClassVar[int]
    max_new_tokens: int
    temperature: float
    seed: int
    draft: bool
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    stop: _containers.RepeatedScalarFieldContainer[str]
    json_schema: str
    regex: str
    def __init__(self, max_new_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., seed: _Optional[int] = ..., draft: _Optional[bool] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., min_p: _Optional[float] = ..., repetition_penalty: _Optional[float] = ..., stop: _Optional[_Iterable[str]] = ..., json_schema: _Optional[str] = ..., regex: _Optional[str] = ...) -> None: ...

class AskResponse(_message.Message):
    __slots__ = ("accepted", "piece", "done", "waiting", "progress")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    PIECE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    accepted: AnswerAccepted
    piece: AnswerPiece
    done: AnswerDone
    waiting: AnswerWaiting
    progress: _documents_pb2.ReadProgress
    def __init__(self, accepted: _Optional[_Union[AnswerAccepted, _Mapping]] = ..., piece: _Optional[_Union[AnswerPiece, _Mapping]] = ..., done: _Optional[_Union[AnswerDone, _Mapping]] = ..., waiting: _Optional[_Union[AnswerWaiting, _Mapping]] = ..., progress: _Optional[_Union[_documents_pb2.ReadProgress, _Mapping]] = ...) -> None: ...

class AnswerWaiting(_message.Message):
    __slots__ = ("place",)
    PLACE_FIELD_NUMBER: _ClassVar[int]
    place: int
    def __init__(self, place: _Optional[int] = ...) -> None: ...

class AnswerAccepted(_message.Message):
    __slots__ = ("prompt_tokens", "cached_tokens", "choice")
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CHOICE_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    cached_tokens: int
    choice: StrategyChoice
    def __init__(self, prompt_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ..., choice: _Optional[_Union[StrategyChoice, _Mapping]] = ...) -> None: ...

class StrategyChoice(_message.Message):
    __slots__ = ("strategy", "reason")
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    strategy: Strategy
    reason: str
    def __init__(self, strategy: _Optional[_Union[Strategy, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class AnswerPiece(_message.Message):
    __slots__ = ("text", "channel")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    text: str
    channel: AnswerChannel
    def __init__(self, text: _Optional[str] = ..., channel: _Optional[_Union[AnswerChannel, str]] = ...) -> None: ...

class AnswerDone(_message.Message):
    __slots__ = ("finish_reason", "usage", "timings", "citations", "conversation_id", "text", "reading")
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    CITATIONS_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    READING_FIELD_NUMBER: _ClassVar[int]
    finish_reason: FinishReason
    usage: AnswerUsage
    timings: AnswerTimings
    citations: _containers.RepeatedCompositeFieldContainer[Citation]
    conversation_id: str
    text: str
    reading: TextReading
    def __init__(self, finish_reason: _Optional[_Union[FinishReason, str]] = ..., usage: _Optional[_Union[AnswerUsage, _Mapping]] = ..., timings: _Optional[_Union[AnswerTimings, _Mapping]] = ..., citations: _Optional[_Iterable[_Union[Citation, _Mapping]]] = ..., conversation_id: _Optional[str] = ..., text: _Optional[str] = ..., reading: _Optional[_Union[TextReading, _Mapping]] = ...) -> None: ...

class TextReading(_message.Message):
    __slots__ = ("choice", "pages", "pages_read", "parts", "reduced_by", "sources")
    CHOICE_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    PAGES_READ_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    REDUCED_BY_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    choice: StrategyChoice
    pages: int
    pages_read: int
    parts: _containers.RepeatedCompositeFieldContainer[PartAnswer]
    reduced_by: str
    sources: _containers.RepeatedCompositeFieldContainer[SourceSpan]
    def __init__(self, choice: _Optional[_Union[StrategyChoice, _Mapping]] = ..., pages: _Optional[int] = ..., pages_read: _Optional[int] = ..., parts: _Optional[_Iterable[_Union[PartAnswer, _Mapping]]] = ..., reduced_by: _Optional[str] = ..., sources: _Optional[_Iterable[_Union[SourceSpan, _Mapping]]] = ...) -> None: ...

class PartAnswer(_message.Message):
    __slots__ = ("first_page", "last_page", "text", "finish_reason", "found")
    FIRST_PAGE_FIELD_NUMBER: _ClassVar[int]
    LAST_PAGE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    first_page: int
    last_page: int
    text: str
    finish_reason: FinishReason
    found: bool
    def __init__(self, first_page: _Optional[int] = ..., last_page: _Optional[int] = ..., text: _Optional[str] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., found: _Optional[bool] = ...) -> None: ...

class SourceSpan(_message.Message):
    __slots__ = ("start", "end", "page")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    page: int
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ..., page: _Optional[int] = ...) -> None: ...

class Citation(_message.Message):
    __slots__ = ("start", "end", "boxes", "answer_start", "answer_end", "kind", "text")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    ANSWER_START_FIELD_NUMBER: _ClassVar[int]
    ANSWER_END_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    boxes: _containers.RepeatedCompositeFieldContainer[PageBox]
    answer_start: int
    answer_end: int
    kind: CitationKind
    text: str
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ..., boxes: _Optional[_Iterable[_Union[PageBox, _Mapping]]] = ..., answer_start: _Optional[int] = ..., answer_end: _Optional[int] = ..., kind: _Optional[_Union[CitationKind, str]] = ..., text: _Optional[str] = ...) -> None: ...

class PageBox(_message.Message):
    __slots__ = ("page", "left", "top", "right", "bottom")
    PAGE_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    BOTTOM_FIELD_NUMBER: _ClassVar[int]
    page: int
    left: int
    top: int
    right: int
    bottom: int
    def __init__(self, page: _Optional[int] = ..., left: _Optional[int] = ..., top: _Optional[int] = ..., right: _Optional[int] = ..., bottom: _Optional[int] = ...) -> None: ...

class AnswerUsage(_message.Message):
    __slots__ = ("prompt_tokens", "cached_tokens", "completion_tokens", "visual_tokens", "text_tokens", "pages", "drafted_tokens", "accepted_tokens", "characters")
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    VISUAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    DRAFTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    visual_tokens: int
    text_tokens: int
    pages: int
    drafted_tokens: int
    accepted_tokens: int
    characters: int
    def __init__(self, prompt_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., visual_tokens: _Optional[int] = ..., text_tokens: _Optional[int] = ..., pages: _Optional[int] = ..., drafted_tokens: _Optional[int] = ..., accepted_tokens: _Optional[int] = ..., characters: _Optional[int] = ...) -> None: ...

class AnswerTimings(_message.Message):
    __slots__ = ("read", "prefill_s", "first_piece_s", "decode_s", "tokens_per_s", "restore_s")
    READ_FIELD_NUMBER: _ClassVar[int]
    PREFILL_S_FIELD_NUMBER: _ClassVar[int]
    FIRST_PIECE_S_FIELD_NUMBER: _ClassVar[int]
    DECODE_S_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_S_FIELD_NUMBER: _ClassVar[int]
    RESTORE_S_FIELD_NUMBER: _ClassVar[int]
    read: _documents_pb2.ReadTimings
    prefill_s: float
    first_piece_s: float
    decode_s: float
    tokens_per_s: float
    restore_s: float
    def __init__(self, read: _Optional[_Union[_documents_pb2.ReadTimings, _Mapping]] = ..., prefill_s: _Optional[float] = ..., first_piece_s: _Optional[float] = ..., decode_s: _Optional[float] = ..., tokens_per_s: _Optional[float] = ..., restore_s: _Optional[float] = ...) -> None: ...
