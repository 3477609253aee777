# SPDX-License-Identifier: Apache-2.0
"""The HTTP side: OpenAI's paths, vLLM's for adapters, and errors in OpenAI's shape."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from tuneyard_server import answers
from tuneyard_server.answers import Envelope, Json
from tuneyard_server.catalog import Catalog
from tuneyard_server.errors import (
    InvalidRequestError,
    MalformedRequestError,
    NotReadyError,
    QueueFullError,
    RequestError,
)
from tuneyard_server.requests import FieldReader, GenerationRequest, parse_request
from tuneyard_server.settings import Settings
from tuneyard_server.worker import Finished, Started, Text, Worker

LOG = logging.getLogger("tuneyard.server")
MAX_BODY_BYTES = 4 << 20
RETRY_SECONDS = "5"
BUG, BUG_KIND = "an error of the server; see its log", "InternalServerError"

WORKER: web.AppKey[Worker] = web.AppKey("worker", Worker)
SETTINGS: web.AppKey[Settings] = web.AppKey("settings", Settings)
FAILED: web.AppKey[asyncio.Event] = web.AppKey("failed", asyncio.Event)
"""Event that is set when the model can't be loaded."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def describe_failure(error: Exception) -> web.Response | None:
    """The answer to an error that has one; None for a bug."""
    match error:
        case RequestError():
            response = build_error_response(
                error.status, str(error), kind=error.kind, parameter=error.parameter
            )
            if isinstance(error, QueueFullError):
                response.headers["Retry-After"] = RETRY_SECONDS
            return response
        case web.HTTPRequestEntityTooLarge():
            return build_error_response(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
        case web.HTTPException():
            return build_error_response(error.status, error.reason)
        case _:
            return None


def build_error_response(
    status: int, message: str, *, kind: str = "BadRequestError", parameter: str | None = None
) -> web.Response:
    """OpenAI's error object with its HTTP status."""
    body = answers.build_error(message, kind=kind, status=status, parameter=parameter)
    return web.json_response(body, status=status)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error in OpenAI's shape; an unexpected error is logged with its traceback, which the answer does not show."""
    try:
        return await handler(request)
    except Exception as error:
        response = describe_failure(error)
        if response is None:
            LOG.exception("%s %s failed", request.method, request.path)
            return build_error_response(500, BUG, kind=BUG_KIND)
        return response


async def complete(request: web.Request) -> web.StreamResponse:
    """POST /v1/completions."""
    return await generate(request, is_chat=False)


async def complete_chat(request: web.Request) -> web.StreamResponse:
    """POST /v1/chat/completions."""
    return await generate(request, is_chat=True)


async def read_json(request: web.Request) -> object:
    """The body; raises InvalidRequestError when it is no JSON."""
    try:
        return json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError([("body", f"is not JSON: {error}")]) from None


async def generate(request: web.Request, *, is_chat: bool) -> web.StreamResponse:
    """Reads the request, then answers at once or as server-sent events."""
    wanted = parse_request(await read_json(request), is_chat=is_chat)
    envelope = Envelope(wanted.model or request.app[SETTINGS].served_name, is_chat)
    if wanted.is_stream:
        return await stream(request, wanted, envelope)
    events = request.app[WORKER].answer(wanted)
    async with contextlib.aclosing(events):
        finished = [event.answer async for event in events if isinstance(event, Finished)]
    return web.json_response(answers.build_answer(envelope, finished))


async def stream(request: web.Request, wanted: GenerationRequest, envelope: Envelope) -> web.StreamResponse:
    """Server-sent events. A wrong request still gets an ordinary error, as nothing is sent before Started."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    finished = []

    async def send(part: Json) -> None:
        await response.write(f"data: {json.dumps(part)}\n\n".encode())

    events = request.app[WORKER].answer(wanted)
    async with contextlib.aclosing(events):
        try:
            async for event in events:
                match event:
                    case Started():
                        await response.prepare(request)
                        if envelope.is_chat:
                            await send(answers.build_role_chunk(envelope))
                    case Text(index, text):
                        await send(answers.build_chunk(envelope, index, text=text))
                    case Finished(index, answer):
                        finished.append(answer)
                        await send(answers.build_chunk(envelope, index, finish_reason=answer.finish_reason))
        except ConnectionResetError:
            return response  # The client is gone.
        except Exception:
            if not response.prepared:
                raise
            LOG.exception("a stream ended early")
            await send(answers.build_error(BUG, kind=BUG_KIND, status=500))
            return response
    if wanted.has_stream_usage:
        await send(answers.build_usage_chunk(envelope, finished))
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


async def list_models(request: web.Request) -> web.Response:
    """GET /v1/models: the base model, and the adapters that were named or loaded since the start."""
    worker, settings = request.app[WORKER], request.app[SETTINGS]
    catalog = worker.catalog
    if catalog is None:
        raise NotReadyError("the model is being loaded")
    rows = [
        answers.build_model_entry(
            settings.served_name, root=settings.model, parent=None, created=worker.loaded_at
        )
    ]
    rows += [
        answers.build_model_entry(
            name, root=str(entry.path), parent=settings.served_name, created=entry.created
        )
        for name, entry in catalog.listed.items()
    ]
    return web.json_response({"object": "list", "data": rows})


async def load_adapter(request: web.Request) -> web.Response:
    """POST /v1/load_lora_adapter: lists an adapter from a folder, or with `load_inplace` its new version."""
    reader = await read_fields(request)
    name, path, is_in_place = reader.text("lora_name"), reader.text("lora_path"), reader.flag("load_inplace")
    if reader.problems:
        raise MalformedRequestError(reader.problems)
    await request.app[WORKER].change(lambda catalog: catalog.load(name, path, is_in_place=is_in_place))
    return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")


async def unload_adapter(request: web.Request) -> web.Response:
    """POST /v1/unload_lora_adapter: takes an adapter off the list; a request that names it may bring it back."""
    reader = await read_fields(request)
    name = reader.text("lora_name")
    if reader.problems:
        raise MalformedRequestError(reader.problems)
    await request.app[WORKER].change(lambda catalog: catalog.unload(name))
    return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")


async def read_fields(request: web.Request) -> FieldReader:
    """The fields of a call that loads or unloads; raises MalformedRequestError."""
    try:
        body = await read_json(request)
    except InvalidRequestError as error:
        raise MalformedRequestError(error.problems) from None
    if not isinstance(body, dict):
        raise MalformedRequestError([("body", "must be a JSON object")])
    return FieldReader(body)


async def show_health(request: web.Request) -> web.Response:
    """GET /health: 200 with nothing once the model is loaded."""
    return web.Response(status=503 if request.app[WORKER].catalog is None else 200)


async def _load(worker: Worker, refresh_seconds: float | None) -> None:
    """Loads the model, and then new adapters at the interval of a server that looks for them by itself."""
    await worker.load()
    while refresh_seconds is not None:
        with contextlib.suppress(NotReadyError):  # The server is stopping.
            await worker.change(Catalog.look)
        await asyncio.sleep(refresh_seconds)


async def run_worker(app: web.Application) -> AsyncIterator[None]:
    """Loads the model while the server already answers; ends the process if it can't."""
    worker = app[WORKER]

    def end_if_failed(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            LOG.error("the model in %s can't be loaded: %s", app[SETTINGS].model, error, exc_info=error)
            app[FAILED].set()

    task = asyncio.create_task(_load(worker, app[SETTINGS].refresh_seconds))
    task.add_done_callback(end_if_failed)
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task
    await worker.close()


def build_app(settings: Settings) -> web.Application:
    """The application, with its worker not yet started."""
    app = web.Application(middlewares=[answer_errors], client_max_size=MAX_BODY_BYTES)
    app[SETTINGS], app[WORKER], app[FAILED] = settings, Worker(settings), asyncio.Event()
    app.cleanup_ctx.append(run_worker)
    app.add_routes(
        [
            web.get("/health", show_health),
            web.get("/v1/models", list_models),
            web.post("/v1/completions", complete),
            web.post("/v1/chat/completions", complete_chat),
        ]
    )
    if settings.allows_updating:
        app.add_routes(
            [
                web.post("/v1/load_lora_adapter", load_adapter),
                web.post("/v1/unload_lora_adapter", unload_adapter),
            ]
        )
    return app
