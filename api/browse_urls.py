"""The paths of the pages for people. "/" is with those of the contract, which also has it."""

from __future__ import annotations

from django.urls import path

from api import browse

urlpatterns = [
    path("tasks/", browse.tasks, name="tasks"),
    path("tasks/<uuid:task_id>/", browse.task, name="task"),
    path("tasks/<uuid:task_id>/output", browse.output, name="task-output"),
    path("workers/", browse.workers, name="workers"),
    path("functions/", browse.functions, name="functions"),
    path("functions/<uuid:function_id>/", browse.function, name="function"),
    path("search", browse.search, name="search"),
]
