"""Clients of a glyph-rt server, for Python programs and for `glyph-rt ask --server`.

with Client("127.0.0.1:50051") as client:
    document = client.read(text)
    for piece in client.ask("What is the notice period?", document=document.id):
        print(piece, end="")

async with AsyncClient("127.0.0.1:50051") as client:
    document = await client.read(text)
    async for piece in client.ask("What is the notice period?", document=document.id):
        print(piece, end="")

A server on another machine wants TLS, and usually a token: Client("box:50051", Access(ca=Path("ca.pem"), token="...")).

What is sent, when it is sent again, and what comes of the replies is written once (`flows.py`, `transcript.py`), as generators that
know neither threads nor event loops. `blocking.py` and `asynchronous.py` carry out the steps these ask for.
"""

from glyph_rt.service.client.asynchronous import AsyncClient, AsyncReply
from glyph_rt.service.client.blocking import Client, Reply
from glyph_rt.service.client.errors import RefusedError, ServiceError

__all__ = ["AsyncClient", "AsyncReply", "Client", "RefusedError", "Reply", "ServiceError"]
