"""All there is, in one table. The class of a view decides which handler runs it: see `faas_project.asgi`."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.urls import include, path

from api.access import pages
from api.access.caller import public
from api.admin import live

urlpatterns = [
    path("", include("api.urls")),
    path("", include("api.browse_urls")),
    path("login/", pages.enter, name="login"),
    path("logout/", pages.leave, name="logout"),
    path("admin/login/", pages.enter),  # ours counts failures
    path("admin/live/", admin.site.admin_view(live), name="admin-live"),
    path("admin/", admin.site.urls),
    # From the folders of the apps: a few small files, for a few people.
    path("static/<path:path>", public(serve), {"insecure": True}),
]

handler400 = "api.errors.bad_request"
handler403 = "api.errors.permission_denied"
handler404 = "api.errors.page_not_found"
handler500 = "api.errors.server_error"
