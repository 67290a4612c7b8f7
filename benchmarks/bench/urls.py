"""The product's URLs, and beside them a view that does nothing, for comparison in the same process."""

from __future__ import annotations

from django.http import HttpResponse
from django.urls import include, path

from api.lean import LeanRequest, LeanView, answer


class Empty(LeanView):
    """`POST /empty`: reads the body like any lean view, looks at nothing, and answers as much as `execute` does."""

    async def post(self, request: LeanRequest) -> HttpResponse:
        return answer(201, {"task_id": "00000000-0000-0000-0000-000000000000"})


urlpatterns = [path("empty", Empty.as_view()), path("", include("faas_project.urls"))]
