"""The paths below `/api/v1/`. Each answers with and without a slash at its end."""

from __future__ import annotations

from api.batches import views as batches
from api.paths import both
from api.v1 import invoke, results, tokens, views

urlpatterns = [
    *both("tasks", views.TaskList.as_view(), "v1-tasks"),
    *both("tasks/<str:task_id>", views.TaskDetail.as_view(), "v1-task"),
    *both("tasks/<str:task_id>/cancel", views.TaskCancel.as_view(), "v1-task-cancel"),
    *both("tasks/<str:task_id>/result", results.Result.as_view(), "v1-task-result"),
    *both("tasks/<str:task_id>/retry", views.TaskRetry.as_view(), "v1-task-retry"),
    *both("functions", views.FunctionList.as_view(), "v1-functions"),
    *both("functions/<str:function_id>", views.FunctionDetail.as_view(), "v1-function"),
    *both("functions/<str:function_id>/invoke", invoke.Invoke.as_view(), "v1-invoke"),
    *both("batches", batches.BatchList.as_view(), "v1-batches"),
    *both("batches/<str:batch>", batches.BatchDetail.as_view(), "v1-batch"),
    *both("batches/<str:batch>/tasks", batches.BatchTasks.as_view(), "v1-batch-tasks"),
    *both("batches/<str:batch>/results", batches.BatchResults.as_view(), "v1-batch-results"),
    *both("batches/<str:batch>/cancel", batches.BatchCancel.as_view(), "v1-batch-cancel"),
    *both("workers", views.WorkerList.as_view(), "v1-workers"),
    *both("tokens", tokens.TokenList.as_view(), "v1-tokens"),
    *both("tokens/<str:token_id>", tokens.TokenDetail.as_view(), "v1-token"),
    *both("tickets", views.Tickets.as_view(), "v1-tickets"),
]
