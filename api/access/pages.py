"""The page to log in by, and the way out. Both are forms, protected by Django's own check of where they come from."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from typing import Any

from django.contrib.auth import authenticate, login, logout
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_http_methods, require_POST

from api.access.caller import public
from api.access.signals import here
from everythingfaas import __version__

#: So many failures within so many seconds, then nobody is let in for the rest of them: of a name, and of an address.
OF_A_NAME = 8
OF_AN_ADDRESS = 30
WITHIN_S = 300.0
#: So many names and addresses are remembered.
_KEPT = 10_000


class Failures:
    """The failures of late, by whatever they are counted by."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, key: str) -> float:
        """How many seconds `key` has to wait; 0: it need not."""
        times = self._times.get(key)
        now = time.monotonic()
        while times and times[0] < now - WITHIN_S:
            times.popleft()
        return times[0] + WITHIN_S - now if times and len(times) >= self._most else 0.0

    def add(self, key: str) -> None:
        self._times.setdefault(key, deque(maxlen=self._most)).append(time.monotonic())
        self._times.move_to_end(key)
        if len(self._times) > _KEPT:
            self._times.popitem(last=False)

    def forget(self, key: str) -> None:
        self._times.pop(key, None)

    def take_back(self, key: str) -> None:
        """The last one was none."""
        if times := self._times.get(key):
            times.pop()


_by_name = Failures(OF_A_NAME)
_by_address = Failures(OF_AN_ADDRESS)


@public
@never_cache
@csrf_protect
@require_http_methods(["GET", "HEAD", "POST"])
def enter(request: HttpRequest) -> HttpResponse:
    """`/login/`. Whether there is a user of that name, neither the answer nor its time tells."""
    if request.method != "POST":
        return _form(request)
    # By name and address both: neither can be locked out by somebody elsewhere who tries many of the other.
    name, address = request.POST.get("username", "")[:150], here(request)
    both = f"{name}\n{address}"
    wait_s = max(_by_name.wait_s(both), _by_address.wait_s(address))
    if wait_s:
        response = _form(request, "Too many failures. Try again in some minutes.", status=429)
        response.headers["Retry-After"] = str(int(wait_s) + 1)
        return response
    _by_name.add(both)  # before, so that those who try at the same time count as well
    _by_address.add(address)
    user = authenticate(request, username=name, password=request.POST.get("password", ""))
    if user is None:
        return _form(request, "That name and password do not fit.", status=403)
    _by_name.forget(both)
    _by_address.take_back(address)
    login(request, user)
    return redirect(_next(request))


@public
@never_cache
@csrf_protect
@require_POST
def leave(request: HttpRequest) -> HttpResponse:
    """`/logout/`: ends the session, and with it the sockets of its pages."""
    logout(request)
    return redirect("/login/")


def _form(request: HttpRequest, problem: str = "", *, status: int = 200) -> HttpResponse:
    context: dict[str, Any] = {"title": "Log in", "problem": problem, "next": _next(request), "version": __version__}
    return render(request, "login.html", context, status=status)


def _next(request: HttpRequest) -> str:
    """Where to go then: a page of ours, and nobody else's."""
    wanted = request.POST.get("next") or request.GET.get("next") or "/"
    ours = url_has_allowed_host_and_scheme(wanted, allowed_hosts=None) and wanted.startswith("/")
    return wanted if ours else "/"
