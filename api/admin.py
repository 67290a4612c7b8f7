"""Functions and tasks as lists to look at. States change in `api.moves` alone, so nothing can be edited here."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.functional import cached_property

from api.models import Function, Task
from api.pages import dashboard
from everythingfaas.status import State

#: Lists go back so many rows.
FURTHEST = 10_000


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
    list_display = ("id", "name", "owner", "size", "created")
    list_select_related = ("owner", "blob")
    exclude = ("blob",)
    search_fields = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Function]:
        return super().get_queryset(request).defer("blob__data", "source")

    @admin.display(description="bytes")
    def size(self, function: Function) -> int:
        return function.blob.size


@admin.register(Task)
class TaskAdmin(ReadOnlyAdmin):
    list_display = ("id", "state_name", "function", "owner", "attempt", "worker", "created", "started", "finished")
    list_filter: ClassVar = [("state", admin.ChoicesFieldListFilter)]
    list_select_related = ("function", "owner")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Task]:
        return super().get_queryset(request).defer("function__source", "policy")

    @admin.display(description="state", ordering="state")
    def state_name(self, task: Task) -> str:
        return State(task.state).name
