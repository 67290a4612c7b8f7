"""The pages for people: tasks, functions, workers. Each is a first look; `api.live` keeps it true."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from api.access.caller import sees_of
from api.live.lists import STATES, Filter
from api.live.topics import TASK, WORKERS, topic_of
from api.models import Attempt, Function, Task
from api.pages import as_json, framed, look
from api.v1.queries import seen

#: Functions of a page.
FUNCTIONS = 50


@require_safe
def tasks(request: HttpRequest) -> HttpResponse:
    """`/tasks/?state=failed&function=…&upto=…`: the URL holds the view."""
    state = request.GET.get("state", "")
    if state not in ("", *STATES):
        return redirect("/tasks/")
    try:
        wanted = Filter(state, _uuid(request.GET.get("function")), _uuid(request.GET.get("upto")))
    except ValueError:
        return redirect("/tasks/")
    function = None
    if wanted.function is not None:
        function = seen(Function.objects.all(), sees_of(request)).filter(id=wanted.function).only("id", "name").first()
        if function is None:
            return _missing(request, "function", wanted.function, "/functions/")
    chosen = {"function": wanted.function} if wanted.function else {}
    states = [
        (word, _link("/tasks/", chosen | ({"state": value} if value else {})), value == state)
        for word, value in (("all", ""), *((state, state) for state in STATES))
    ]
    context = framed(
        request,
        "tasks",
        "Tasks",
        view=_view(request, topic_of(wanted)),
        states=states,
        state=state,
        function=function,
        without_function=_link("/tasks/", {"state": state} if state else {}),
        paged=wanted.upto is not None,
    )
    return render(request, "tasks.html", context)


@require_safe
def task(request: HttpRequest, task_id: UUID) -> HttpResponse:
    view = _view(request, f"{TASK}{task_id}") | {"id": str(task_id)}
    found = view["parts"]["task"]
    if found is None:
        return _missing(request, "task", task_id, "/tasks/")
    row = found["row"]
    context = framed(request, "tasks", "Task", view=view, id=task_id, name=row["name"], function=row["function"])
    return render(request, "task.html", context)


@require_safe
def output(request: HttpRequest, task_id: UUID) -> HttpResponse:
    """What is stored of an attempt's output: in base64 for the page, as it is for a download."""
    try:
        number = int(request.GET.get("attempt", ""))
    except ValueError:
        raise Http404 from None
    sees = sees_of(request)
    if sees is not None and not seen(Task.objects.all(), sees).filter(id=task_id).exists():
        raise Http404
    found = Attempt.objects.filter(task_id=task_id, attempt=number).values_list(
        "output_head", "output_tail", "output_dropped"
    )
    if not found:
        raise Http404
    head, tail, dropped = bytes(found[0][0] or b""), bytes(found[0][1] or b""), found[0][2]
    if "download" not in request.GET:
        encoded = (base64.b64encode(part).decode() for part in (head, tail))
        return JsonResponse(dict(zip(("head", "tail"), encoded, strict=True)) | {"dropped": dropped})
    between = f"\n[{dropped} bytes between are not kept]\n".encode() if dropped else b""
    return HttpResponse(
        head + between + tail,
        content_type="application/octet-stream",  # whatever it is, no browser shows it as a page of ours
        headers={"Content-Disposition": f'attachment; filename="{task_id}-{number}.txt"'},
    )


@require_safe
def workers(request: HttpRequest) -> HttpResponse:
    return render(request, "workers.html", framed(request, "workers", "Workers", view=_view(request, WORKERS)))


@require_safe
def functions(request: HttpRequest) -> HttpResponse:
    """`/functions/?q=beginning&after=name,id`: by name, a page at a time along the index."""
    query = request.GET.get("q", "")
    after = request.GET.get("after", "")
    rows = (
        seen(Function.objects.all(), sees_of(request))
        .select_related("blob")
        .defer("blob__data", "source", "policy")
        .order_by("name", "id")
    )
    if query:
        rows = rows.filter(name__gte=query, name__lt=query + "\U0010ffff")
    if after:
        name, _, last = after.rpartition(",")
        try:
            rows = rows.filter(Q(name__gt=name) | Q(name=name, id__gt=UUID(last)))
        except ValueError:
            return redirect("/functions/")
    found = list(rows[: FUNCTIONS + 1])
    chosen = {"q": query} if query else {}
    following = ""
    if len(found) > FUNCTIONS:
        last_shown = found[FUNCTIONS - 1]
        following = _link("/functions/", chosen | {"after": f"{last_shown.name},{last_shown.id}"})
    context = framed(
        request,
        "functions",
        "Functions",
        functions=found[:FUNCTIONS],
        query=query,
        next=following,
        first=_link("/functions/", chosen),
        paged=bool(after),
    )
    return render(request, "functions.html", context)


@require_safe
def function(request: HttpRequest, function_id: UUID) -> HttpResponse:
    mine = seen(Function.objects.all(), sees_of(request))
    found = mine.select_related("blob").defer("blob__data").filter(id=function_id).first()
    if found is None:
        return _missing(request, "function", function_id, "/functions/")
    view = _view(request, topic_of(Filter(function=function_id)))
    return render(request, "function.html", framed(request, "functions", found.name, function=found, view=view))


@require_safe
def search(request: HttpRequest) -> HttpResponse:
    """A task or function by its id, else the functions whose names begin so."""
    text = request.GET.get("q", "").strip()
    try:
        wanted = _uuid(text)
    except ValueError:
        wanted = None
    if wanted is not None:
        sees = sees_of(request)
        if seen(Task.objects.all(), sees).filter(id=wanted).exists():
            return redirect(f"/tasks/{wanted}/")
        if seen(Function.objects.all(), sees).filter(id=wanted).exists():
            return redirect(f"/functions/{wanted}/")
    return redirect(_link("/functions/", {"q": text} if text else {}))


def _view(request: HttpRequest, topic: str) -> dict[str, Any]:
    """What a page's script is given."""
    return {"topic": topic, "parts": as_json(look(request, topic))}


def _uuid(text: str | None) -> UUID | None:
    return UUID(text) if text else None


def _link(path: str, fields: dict[str, Any]) -> str:
    return f"{path}?{urlencode(fields)}" if fields else path


def _missing(request: HttpRequest, noun: str, identifier: UUID, back: str) -> HttpResponse:
    here = "tasks" if noun == "task" else "functions"
    context = framed(request, here, f"No such {noun}", noun=noun, id=identifier, back=back)
    return render(request, "missing.html", context, status=404)
