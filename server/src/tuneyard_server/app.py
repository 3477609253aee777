# SPDX-License-Identifier: Apache-2.0
"""The HTTP side: OpenAI's and NIM's paths, and errors in OpenAI's shape."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from tuneyard_server import answers
from tuneyard_server.answers import Envelope, Json
from tuneyard_server.errors import InvalidRequestError, NotReadyError, QueueFullError, RequestError
from tuneyard_server.requests import GenerationRequest, parse_request
from tuneyard_server.settings import Settings
from tuneyard_server.worker import Finished, Started, Text, Worker

LOG = logging.getLogger("tuneyard.server")
MAX_BODY_BYTES = 4 << 20
RETRY_SECONDS = "5"

WORKER: web.AppKey[Worker] = web.AppKey("worker", Worker)
SETTINGS: web.AppKey[Settings] = web.AppKey("settings", Settings)
FAILED: web.AppKey[asyncio.Event] = web.AppKey("failed", asyncio.Event)
"""Set when the model can't be loaded."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def describe_failure(error: Exception) -> web.Response | None:
    """The answer to an error that has one; None for a bug."""
    match error:
        case RequestError():
            response = build_error_response(
                error.status, str(error), kind=error.kind, code=error.code, parameter=error.parameter
            )
            if isinstance(error, QueueFullError):
                response.headers["Retry-After"] = RETRY_SECONDS
            return response
        case web.HTTPRequestEntityTooLarge():
            return build_error_response(
                413, f"the body is larger than {MAX_BODY_BYTES} bytes", code="body_too_large"
            )
        case web.HTTPException():
            return build_error_response(
                error.status, error.reason, code=error.reason.lower().replace(" ", "_")
            )
        case _:
            return None


def build_error_response(
    status: int, message: str, *, kind: str = "invalid_request_error", code: str, parameter: str | None = None
) -> web.Response:
    """OpenAI's error object with its HTTP status."""
    return web.json_response(
        answers.build_error(message, kind=kind, code=code, parameter=parameter), status=status
    )


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error in OpenAI's shape; what nobody foresaw is logged with its trace and shows nothing of it."""
    try:
        return await handler(request)
    except Exception as error:
        response = describe_failure(error)
        if response is None:
            LOG.exception("%s %s failed", request.method, request.path)
            return build_error_response(
                500, "an error of the server; see its log", kind="server_error", code="internal"
            )
        return response


async def complete(request: web.Request) -> web.StreamResponse:
    """POST /v1/completions."""
    return await generate(request, is_chat=False)


async def complete_chat(request: web.Request) -> web.StreamResponse:
    """POST /v1/chat/completions."""
    return await generate(request, is_chat=True)


async def generate(request: web.Request, *, is_chat: bool) -> web.StreamResponse:
    """Reads the request, then answers at once or as server-sent events."""
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError([("body", f"is not JSON: {error}")]) from None
    wanted = parse_request(body, is_chat=is_chat)
    envelope = Envelope(wanted.model, is_chat)
    if wanted.is_stream:
        return await stream(request, wanted, envelope)
    events = request.app[WORKER].answer(wanted)
    async with contextlib.aclosing(events):
        finished = [event.answer async for event in events if isinstance(event, Finished)]
    return web.json_response(answers.build_answer(envelope, finished))


async def stream(request: web.Request, wanted: GenerationRequest, envelope: Envelope) -> web.StreamResponse:
    """Server-sent events. What is wrong with the request is still an ordinary error: nothing is sent before Started."""
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
            return response  # Nobody listens any more.
        except Exception:
            if not response.prepared:
                raise
            LOG.exception("a stream broke off")
            await send(
                answers.build_error(
                    "an error of the server; see its log", kind="server_error", code="internal"
                )
            )
            return response
    if wanted.has_stream_usage:
        await send(answers.build_usage_chunk(envelope, finished))
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


async def list_models(request: web.Request) -> web.Response:
    """GET /v1/models: the base model and, below it, the adapters that answer right now."""
    worker = request.app[WORKER]
    catalog = worker.catalog
    if catalog is None:
        raise NotReadyError("the model is being loaded")
    rows = [
        answers.build_model_entry(
            catalog.base, root=str(request.app[SETTINGS].model), parent=None, created=worker.loaded_at
        )
    ]
    rows += [
        answers.build_model_entry(
            name,
            root=str(served.files.path),
            parent=catalog.base,
            created=served.files.created,
            digest=served.files.digest,
        )
        for name, served in sorted(catalog.served.items())
    ]
    return web.json_response({"object": "list", "data": rows})


async def show_live(_request: web.Request) -> web.Response:
    """GET /v1/health/live: the process answers."""
    return web.json_response({"object": "health.response", "status": "live", "message": "Service is live."})


async def show_ready(request: web.Request) -> web.Response:
    """GET /v1/health/ready: 200 once model and first adapters are loaded; bad adapters are told, and change nothing."""
    worker = request.app[WORKER]
    catalog = worker.catalog
    if catalog is None:
        message = {"object": "health.response", "status": "loading", "message": "The model is being loaded."}
        return web.json_response(message, status=503)
    return web.json_response(
        {
            "object": "health.response",
            "status": "ready",
            "message": "Service is ready.",
            "adapters": sorted(catalog.served),
            "refused": [
                {"adapter": name, "digest": refused.files.digest, "message": refused.message}
                for name, refused in sorted(catalog.refused.items())
            ],
            "incomplete": [{"adapter": name, "message": message} for name, message in catalog.incomplete],
            "registryProblem": worker.registry_problem,
        }
    )


async def show_metadata(request: web.Request) -> web.Response:
    """GET /v1/metadata: what this is, and what it is not."""
    settings = request.app[SETTINGS]
    return web.json_response(
        {
            "name": "tuneyard-local-server",
            "standsInFor": "NVIDIA NIM for LLMs",
            "notice": answers.NOTICE,
            "modelInfo": [{"shortName": settings.served_name, "modelUrl": str(settings.model)}],
            "device": "cpu",
            "precision": "float32",
            "peftSource": str(settings.adapters) if settings.adapters else None,
            "peftRefreshSeconds": settings.refresh_seconds,
        }
    )


async def run_worker(app: web.Application) -> AsyncIterator[None]:
    """Loads the model while the server already answers, then follows the registry; ends the process if it can't load."""
    worker = app[WORKER]

    async def follow() -> None:
        await worker.load()
        while True:
            await asyncio.sleep(app[SETTINGS].refresh_seconds)
            await worker.refresh()

    def end_if_failed(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            LOG.error("the model in %s can't be loaded: %s", app[SETTINGS].model, error, exc_info=error)
            app[FAILED].set()

    task = asyncio.create_task(follow())
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
            web.get("/v1/models", list_models),
            web.post("/v1/completions", complete),
            web.post("/v1/chat/completions", complete_chat),
            web.get("/v1/health/live", show_live),
            web.get("/v1/health/ready", show_ready),
            web.get("/v1/metadata", show_metadata),
        ]
    )
    return app
