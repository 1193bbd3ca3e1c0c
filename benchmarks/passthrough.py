"""The least that a gateway in Python can be: reads a request's JSON, asks the model server, streams its bytes back."""

import os
from collections.abc import AsyncIterator

import httpx2
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

client = httpx2.AsyncClient(base_url=os.environ["UPSTREAM"], limits=httpx2.Limits(max_connections=1000), timeout=60)
app = FastAPI()


@app.get("/healthz")
async def health() -> dict[str, str]:
    return {}


@app.post("/v1/chat/completions")
async def chat(request: Request) -> StreamingResponse:
    body = await request.json()
    upstream = await client.send(client.build_request("POST", "/chat/completions", json=body), stream=True)

    async def relay() -> AsyncIterator[bytes]:
        try:
            async for data in upstream.aiter_raw():
                yield data
        finally:
            await upstream.aclose()

    return StreamingResponse(relay(), media_type="text/event-stream")
