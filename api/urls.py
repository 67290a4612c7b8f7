"""The paths of the contract. Each answers with and without a slash at its end."""

from __future__ import annotations

from django.urls import include, path

from api import openapi, views
from api.paths import both

urlpatterns = [
    path("", views.Home.as_view(), name="home"),
    *both("register_function", views.RegisterFunction.as_view(), "register-function"),
    *both("execute_function", views.ExecuteFunction.as_view(), "execute-function"),
    *both("status/<str:task_id>", views.TaskStatus.as_view(), "task-status"),
    *both("result/<str:task_id>", views.TaskResult.as_view(), "task-result"),
    *both("healthz", views.Health.as_view(), "health"),
    *both("readyz", views.Ready.as_view(), "ready"),
    path("api/v1/", include("api.v1.urls")),
    *both("api/schema", openapi.Schema.as_view(), "schema"),
    *both("api/docs", openapi.docs, "docs"),
]
