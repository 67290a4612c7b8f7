"""Functions and tasks as lists to look at. States change in `api.moves` alone, so nothing can be edited here, but
tasks can be cancelled and run again."""

from __future__ import annotations

import time
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.functional import cached_property

from api import bulk
from api.access import admin as access_admin
from api.access.caller import sees_of
from api.access.signals import record_all
from api.models import Function, Task
from api.pages import dashboard
from api.v1.queries import seen
from everythingfaas.status import State

__all__ = ["FunctionAdmin", "TaskAdmin", "access_admin", "live"]

#: Lists go back so many rows.
FURTHEST = 10_000
#: Actions take so many tasks.
MOST = 1_000


def live(request: HttpRequest) -> HttpResponse:
    """`/admin/live/`: the overview, within the admin."""
    context = admin.site.each_context(request) | dashboard(request) | {"title": "Live"}
    return render(request, "admin/live.html", context)


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # generic in the stubs only
    """Counts up to a bound and not the whole table."""

    @cached_property
    def count(self) -> int:
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]  # no list is paged here
        return rows[:FURTHEST].count()


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """A list and a page for each row, without a form. Nobody counts the table for it."""

    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # it counts the table for each choice of a filter
    list_per_page = 50
    paginator = BoundedPaginator

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Function)
class FunctionAdmin(ReadOnlyAdmin):
    list_display = ("name", "id", "owner", "size", "pythons", "created")
    list_filter = ("pythons",)
    list_select_related = ("owner", "blob")
    exclude = ("blob",)
    search_fields = ("name__startswith",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Function]:
        rows = super().get_queryset(request).defer("blob__data", "source", "policy")
        return seen(rows, sees_of(request))

    def view_on_site(self, obj: Function) -> str:
        return f"/functions/{obj.pk}/"

    @admin.display(description="bytes")
    def size(self, function: Function) -> int:
        return function.blob.size


class AcceptedFilter(admin.SimpleListFilter):
    """By when it was accepted. Ids are in order of time, so this is a range of the primary key."""

    title = "accepted"
    parameter_name = "accepted"
    _HOURS: ClassVar = {"hour": 1, "day": 24, "week": 168}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, f"in the last {name}") for name in self._HOURS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Task]) -> QuerySet[Task]:
        hours = self._HOURS.get(self.value() or "")
        return queryset if hours is None else queryset.filter(id__gte=_first_id(time.time() - 3600 * hours))


def _first_id(at: float) -> UUID:
    """No UUIDv7 that was made at `at` or later is less than this."""
    return UUID(int=int(at * 1000) << 80 | 7 << 76 | 2 << 62)


@admin.register(Task)
class TaskAdmin(ReadOnlyAdmin):
    list_display = ("id", "state_name", "function", "owner", "starts", "worker", "created", "started", "finished")
    list_filter: ClassVar = [("state", admin.ChoicesFieldListFilter), AcceptedFilter]
    list_select_related = ("function", "owner")
    search_fields = ("id",)
    search_help_text = "The whole id of a task"
    actions = ("cancel", "run_again")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Task]:
        rows = super().get_queryset(request)
        return seen(rows, sees_of(request)).defer("function__source", "function__policy", "policy", "error")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if not search_term:
            return queryset, False
        try:
            return queryset.filter(id=UUID(search_term.strip())), False
        except ValueError:
            return queryset.none(), False

    def view_on_site(self, obj: Task) -> str:
        return f"/tasks/{obj.pk}/"

    def has_act_permission(self, request: HttpRequest) -> bool:
        """For what changes tasks: looking at them does not suffice."""
        return request.user.has_perm("api.change_task")

    @admin.display(description="state", ordering="state")
    def state_name(self, task: Task) -> str:
        return State(task.state).name

    @admin.action(description="Cancel", permissions=["act"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Task]) -> HttpResponse | None:
        ids = self._chosen(request, queryset)
        if not ids:
            return None
        if "confirmed" not in request.POST:
            context = self.admin_site.each_context(request) | {
                "title": f"Cancel {len(ids)} task{'s' if len(ids) > 1 else ''}?",
                "ids": ids,
                "opts": self.opts,
            }
            return render(request, "admin/confirm_cancel.html", context)
        done = bulk.cancel(ids)
        record_all(request.user.get_username(), "cancel", ids)
        left = len(ids) - done.ended - done.asked
        said = f"{done.ended} cancelled, {done.asked} being ended"
        self.message_user(request, f"{said}, {left} had ended before." if left else f"{said}.")
        return None

    @admin.action(description="Run again", permissions=["act"])
    def run_again(self, request: HttpRequest, queryset: QuerySet[Task]) -> None:
        if ids := self._chosen(request, queryset):
            made = bulk.run_again(ids)
            record_all(request.user.get_username(), "retry", ids)
            self.message_user(request, f"{len(made)} submitted anew.")

    def _chosen(self, request: HttpRequest, queryset: QuerySet[Task]) -> list[UUID]:
        """What an action is for. Too many are refused, and the user is told so."""
        ids = list(queryset.order_by("-id").values_list("id", flat=True)[: MOST + 1])
        if len(ids) > MOST:
            self.message_user(request, f"At most {MOST} tasks at once: narrow the list.", messages.ERROR)
            return []
        return ids
