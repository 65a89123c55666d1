"""RuntimeService: what a server runs, what it takes on, and what it does."""

from __future__ import annotations

import time

from glyph_rt import __version__
from glyph_rt.service.calls import Context, Desk, well_formed
from glyph_rt.service.documents import pages_limit
from glyph_rt.v1 import runtime_pb2 as pb
from glyph_rt.v1 import runtime_pb2_grpc


class RuntimeService(runtime_pb2_grpc.RuntimeServiceServicer):
    """See proto/glyph_rt/v1/runtime.proto, which is the reference."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def GetRuntime(self, request: pb.GetRuntimeRequest, context: Context) -> pb.GetRuntimeResponse:
        desk, own = self._desk, self._desk.limits
        async with desk.call("GetRuntime", context, stream=False) as call:
            well_formed(request)
            runtime, tally = call.runtime, desk.telemetry.tally
            plan = runtime.plan()
            limits = pb.RuntimeLimits(
                text_bytes=runtime.limits.text_bytes,
                pages=pages_limit(runtime),
                question_bytes=own.question_bytes,
                message_bytes=own.message_bytes,
                documents=own.documents,
                streams=own.streams,
                upload_bytes=own.upload_bytes,
                deadline_s=own.deadline_s,
                idle_s=own.idle_s,
                tenant_documents=own.tenant_documents or own.documents,
                tenant_streams=own.tenant_streams or own.streams,
                kept_bytes=runtime.texts.budget,
                long_bytes=own.long_bytes,
                parts=own.parts,
                window_pages=own.window or 0,
            )
            memory = pb.RuntimeMemory(
                weight_bytes=plan.weights,
                kv_budget_bytes=plan.kv_budget,
                kv_used_bytes=runtime.arena.used,
                kv_bytes_per_token=plan.kv_per_token,
            )
            load = pb.RuntimeLoad(
                uptime_s=time.monotonic() - desk.started,
                streams=desk.streams.used,
                upload_bytes=desk.uploads.used,
                kept_bytes=runtime.texts.used,
                documents=len(desk.library),
                readings=tally.readings,
                pages=tally.pages,
                answers=tally.answers,
                generation_tokens=tally.output_tokens,
                refusals=tally.refusals,
            )
            return pb.GetRuntimeResponse(
                version=__version__,
                model_digest=runtime.checkpoint.digest,
                style=runtime.style.name,
                encoder=runtime.encoder.name,
                context_tokens=plan.context,
                limits=limits,
                memory=memory,
                documents=desk.library.count(call.tenant),
                tenant=call.tenant,
                load=load,
            )
