from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetRuntimeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetRuntimeResponse(_message.Message):
    __slots__ = ("version", "model_digest", "style", "encoder", "context_tokens", "limits", "memory", "documents", "tenant", "load")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    STYLE_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    version: str
    model_digest: str
    style: str
    encoder: str
    context_tokens: int
    limits: RuntimeLimits
    memory: RuntimeMemory
    documents: int
    tenant: str
    load: RuntimeLoad
    def __init__(self, version: _Optional[str] = ..., model_digest: _Optional[str] = ..., style: _Optional[str] = ..., encoder: _Optional[str] = ..., context_tokens: _Optional[int] = ..., limits: _Optional[_Union[RuntimeLimits, _Mapping]] = ..., memory: _Optional[_Union[RuntimeMemory, _Mapping]] = ..., documents: _Optional[int] = ..., tenant: _Optional[str] = ..., load: _Optional[_Union[RuntimeLoad, _Mapping]] = ...) -> None: ...

class RuntimeLimits(_message.Message):
    __slots__ = ("text_bytes", "pages", "question_bytes", "message_bytes", "documents", "streams", "upload_bytes", "deadline_s", "idle_s", "tenant_documents", "tenant_streams", "kept_bytes", "long_bytes", "parts", "window_pages")
    TEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    QUESTION_BYTES_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    IDLE_S_FIELD_NUMBER: _ClassVar[int]
    TENANT_DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    TENANT_STREAMS_FIELD_NUMBER: _ClassVar[int]
    KEPT_BYTES_FIELD_NUMBER: _ClassVar[int]
    LONG_BYTES_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_PAGES_FIELD_NUMBER: _ClassVar[int]
    text_bytes: int
    pages: int
    question_bytes: int
    message_bytes: int
    documents: int
    streams: int
    upload_bytes: int
    deadline_s: float
    idle_s: float
    tenant_documents: int
    tenant_streams: int
    kept_bytes: int
    long_bytes: int
    parts: int
    window_pages: int
    def __init__(self, text_bytes: _Optional[int] = ..., pages: _Optional[int] = ..., question_bytes: _Optional[int] = ..., message_bytes: _Optional[int] = ..., documents: _Optional[int] = ..., streams: _Optional[int] = ..., upload_bytes: _Optional[int] = ..., deadline_s: _Optional[float] = ..., idle_s: _Optional[float] = ..., tenant_documents: _Optional[int] = ..., tenant_streams: _Optional[int] = ..., kept_bytes: _Optional[int] = ..., long_bytes: _Optional[int] = ..., parts: _Optional[int] = ..., window_pages: _Optional[int] = ...) -> None: ...

class RuntimeMemory(_message.Message):
    __slots__ = ("weight_bytes", "kv_budget_bytes", "kv_used_bytes", "kv_bytes_per_token")
    WEIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_BYTES_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    weight_bytes: int
    kv_budget_bytes: int
    kv_used_bytes: int
    kv_bytes_per_token: int
    def __init__(self, weight_bytes: _Optional[int] = ..., kv_budget_bytes: _Optional[int] = ..., kv_used_bytes: _Optional[int] = ..., kv_bytes_per_token: _Optional[int] = ...) -> None: ...

class RuntimeLoad(_message.Message):
    __slots__ = ("uptime_s", "streams", "upload_bytes", "kept_bytes", "documents", "readings", "pages", "answers", "generation_tokens", "refusals")
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    KEPT_BYTES_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    READINGS_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    uptime_s: float
    streams: int
    upload_bytes: int
    kept_bytes: int
    documents: int
    readings: int
    pages: int
    answers: int
    generation_tokens: int
    refusals: int
    def __init__(self, uptime_s: _Optional[float] = ..., streams: _Optional[int] = ..., upload_bytes: _Optional[int] = ..., kept_bytes: _Optional[int] = ..., documents: _Optional[int] = ..., readings: _Optional[int] = ..., pages: _Optional[int] = ..., answers: _Optional[int] = ..., generation_tokens: _Optional[int] = ..., refusals: _Optional[int] = ...) -> None: ...
