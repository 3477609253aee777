# SPDX-License-Identifier: Apache-2.0
"""Entity Store: namespaces, projects, data sets and models; and the store of entities that the other services use."""

import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from support.nemo.wire import Refused, Reply, Request, Unprocessable, reply

Entity = dict[str, Any]
_MOST = 100


class Entities:
    """Entities of one kind by namespace and name."""

    def __init__(self, prefix: str, now: Callable[[], datetime], required: Mapping[str, type]) -> None:
        self.prefix, self.now, self.required = prefix, now, required
        self.held: dict[tuple[str, str], Entity] = {}

    def create(self, body: Any, **more: Any) -> Entity:
        checked(body, self.required)
        entity_id = f"{self.prefix}-{uuid.uuid4().hex[:22]}"
        place = (body.get("namespace") or "default", body.get("name") or entity_id)
        if place in self.held:
            raise Refused(409, f"{'/'.join(place)} exists already")
        moment = self.now().isoformat()
        self.held[place] = {
            **body,
            **dict(zip(("namespace", "name"), place, strict=True)),
            "id": entity_id,
            "created_at": moment,
            "updated_at": moment,
            **more,
        }
        return self.held[place]

    def get(self, place: tuple[str, str]) -> Entity:
        if place not in self.held:
            raise Refused(404, f"{'/'.join(place)} does not exist")
        return self.held[place]

    def serve(self, request: Request, rest: list[str]) -> Reply:
        """CRUD under one path: POST and GET of the list; GET, PATCH and DELETE of `namespace/name`."""
        if not rest:
            if request.method == "POST":
                return reply(self.create(request.json()), 201)
            return reply(page(self.held.values(), request.query))
        place = (rest[0], "/".join(rest[1:]))
        entity = self.get(place)
        if request.method == "PATCH":
            entity.update(request.json(), updated_at=self.now().isoformat())
        elif request.method == "DELETE":
            del self.held[place]
            return reply({"id": entity["id"], "message": "deleted"})
        return reply(entity)


def checked(body: Any, required: Mapping[str, type]) -> None:
    """Refuse a body that is no object or lacks a required field."""
    if not isinstance(body, dict):
        raise Unprocessable("body", "is not an object")
    for name, kind in required.items():
        if not isinstance(body.get(name), kind):
            raise Unprocessable(name, f"is required, as {kind.__name__}")


def page(entities: Iterable[Entity], query: Mapping[str, str]) -> dict[str, Any]:
    """One page of a list, filtered by `filter[field]` and sorted by `sort`, as the client's page models have it."""
    wanted = {name[7:-1]: value for name, value in query.items() if name.startswith("filter[")}
    found = [
        each for each in entities if all(_text(each, name) in {None, value} for name, value in wanted.items())
    ]
    sort = query.get("sort", "created_at")
    found.sort(key=lambda each: str(each["created_at"]), reverse=sort.startswith("-"))
    number, size = int(query.get("page", 1)), min(_MOST, int(query.get("page_size", 10)))
    data = found[(number - 1) * size : number * size]
    pagination = {
        "page": number,
        "page_size": size,
        "current_page_size": len(data),
        "total_pages": -(-len(found) // size),
        "total_results": len(found),
    }
    return {"object": "list", "data": data, "pagination": pagination, "sort": sort}


def _text(entity: Entity, name: str) -> str | None:
    value = entity.get(name)
    return None if value is None or isinstance(value, dict | list) else str(value)


class EntityStore:
    """The service."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.namespaces: dict[str, Entity] = {}
        self.kinds = {
            "datasets": Entities("dataset", now, {"files_url": str}),
            "models": Entities("model", now, {}),
            "projects": Entities("project", now, {}),
        }

    def serve(self, request: Request, parts: list[str]) -> Reply:
        kind, rest = parts[0], parts[1:]
        return (
            self._namespaces(request, rest) if kind == "namespaces" else self.kinds[kind].serve(request, rest)
        )

    def _namespaces(self, request: Request, rest: list[str]) -> Reply:
        if not rest:
            if request.method == "GET":
                return reply(page(self.namespaces.values(), request.query))
            body = request.json()
            checked(body, {})
            name = body.get("id") or f"namespace-{len(self.namespaces)}"
            if name in self.namespaces:
                raise Refused(409, f"namespace {name} exists already")
            moment = self.now().isoformat()
            self.namespaces[name] = {**body, "id": name, "created_at": moment, "updated_at": moment}
            return reply(self.namespaces[name], 201)
        if rest[0] not in self.namespaces:
            raise Refused(404, f"namespace {rest[0]} does not exist")
        if request.method == "DELETE":
            del self.namespaces[rest[0]]
            return reply({"id": rest[0], "message": "deleted"})
        if request.method == "PATCH":
            self.namespaces[rest[0]].update(request.json())
        return reply(self.namespaces[rest[0]])
