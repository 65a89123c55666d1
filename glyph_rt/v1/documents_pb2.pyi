import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReadStage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    READ_STAGE_UNSPECIFIED: _ClassVar[ReadStage]
    READ_STAGE_RECEIVED: _ClassVar[ReadStage]
    READ_STAGE_LAYOUT: _ClassVar[ReadStage]
    READ_STAGE_READ: _ClassVar[ReadStage]
    READ_STAGE_WAIT: _ClassVar[ReadStage]
READ_STAGE_UNSPECIFIED: ReadStage
READ_STAGE_RECEIVED: ReadStage
READ_STAGE_LAYOUT: ReadStage
READ_STAGE_READ: ReadStage
READ_STAGE_WAIT: ReadStage

class Document(_message.Message):
    __slots__ = ("id", "digest", "pages", "visual_tokens", "text_tokens", "characters", "missing_characters", "compression", "kv_bytes", "create_time", "timings", "prefilled_tokens")
    ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    VISUAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    MISSING_CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    KV_BYTES_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    PREFILLED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    id: str
    digest: str
    pages: int
    visual_tokens: int
    text_tokens: int
    characters: int
    missing_characters: int
    compression: float
    kv_bytes: int
    create_time: _timestamp_pb2.Timestamp
    timings: ReadTimings
    prefilled_tokens: int
    def __init__(self, id: _Optional[str] = ..., digest: _Optional[str] = ..., pages: _Optional[int] = ..., visual_tokens: _Optional[int] = ..., text_tokens: _Optional[int] = ..., characters: _Optional[int] = ..., missing_characters: _Optional[int] = ..., compression: _Optional[float] = ..., kv_bytes: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., timings: _Optional[_Union[ReadTimings, _Mapping]] = ..., prefilled_tokens: _Optional[int] = ...) -> None: ...

class ReadTimings(_message.Message):
    __slots__ = ("typeset_s", "encode_s", "prefill_s", "wait_s")
    TYPESET_S_FIELD_NUMBER: _ClassVar[int]
    ENCODE_S_FIELD_NUMBER: _ClassVar[int]
    PREFILL_S_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    typeset_s: float
    encode_s: float
    prefill_s: float
    wait_s: float
    def __init__(self, typeset_s: _Optional[float] = ..., encode_s: _Optional[float] = ..., prefill_s: _Optional[float] = ..., wait_s: _Optional[float] = ...) -> None: ...

class ReadProgress(_message.Message):
    __slots__ = ("stage", "done", "total")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    stage: ReadStage
    done: int
    total: int
    def __init__(self, stage: _Optional[_Union[ReadStage, str]] = ..., done: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class ReadDocumentOptions(_message.Message):
    __slots__ = ("size_bytes", "system")
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_FIELD_NUMBER: _ClassVar[int]
    size_bytes: int
    system: str
    def __init__(self, size_bytes: _Optional[int] = ..., system: _Optional[str] = ...) -> None: ...

class ReadDocumentRequest(_message.Message):
    __slots__ = ("options", "text")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    options: ReadDocumentOptions
    text: bytes
    def __init__(self, options: _Optional[_Union[ReadDocumentOptions, _Mapping]] = ..., text: _Optional[bytes] = ...) -> None: ...

class ReadDocumentResponse(_message.Message):
    __slots__ = ("progress", "document")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    progress: ReadProgress
    document: Document
    def __init__(self, progress: _Optional[_Union[ReadProgress, _Mapping]] = ..., document: _Optional[_Union[Document, _Mapping]] = ...) -> None: ...

class GetDocumentRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class GetDocumentResponse(_message.Message):
    __slots__ = ("document",)
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    document: Document
    def __init__(self, document: _Optional[_Union[Document, _Mapping]] = ...) -> None: ...

class ListDocumentsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListDocumentsResponse(_message.Message):
    __slots__ = ("documents", "next_page_token")
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    documents: _containers.RepeatedCompositeFieldContainer[Document]
    next_page_token: str
    def __init__(self, documents: _Optional[_Iterable[_Union[Document, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteDocumentRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class DeleteDocumentResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RenderPagesRequest(_message.Message):
    __slots__ = ("id", "first_page", "page_count")
    ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_PAGE_FIELD_NUMBER: _ClassVar[int]
    PAGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    id: str
    first_page: int
    page_count: int
    def __init__(self, id: _Optional[str] = ..., first_page: _Optional[int] = ..., page_count: _Optional[int] = ...) -> None: ...

class RenderPagesResponse(_message.Message):
    __slots__ = ("page", "width", "height", "png")
    PAGE_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    PNG_FIELD_NUMBER: _ClassVar[int]
    page: int
    width: int
    height: int
    png: bytes
    def __init__(self, page: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., png: _Optional[bytes] = ...) -> None: ...

class AppendDocumentOptions(_message.Message):
    __slots__ = ("document_id", "size_bytes")
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    document_id: str
    size_bytes: int
    def __init__(self, document_id: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class AppendDocumentRequest(_message.Message):
    __slots__ = ("options", "text")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    options: AppendDocumentOptions
    text: bytes
    def __init__(self, options: _Optional[_Union[AppendDocumentOptions, _Mapping]] = ..., text: _Optional[bytes] = ...) -> None: ...

class AppendDocumentResponse(_message.Message):
    __slots__ = ("progress", "document")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    progress: ReadProgress
    document: Document
    def __init__(self, progress: _Optional[_Union[ReadProgress, _Mapping]] = ..., document: _Optional[_Union[Document, _Mapping]] = ...) -> None: ...
