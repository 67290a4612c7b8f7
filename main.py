"""The ASGI application under the name that `uvicorn main:app` asks for."""

from everythingfaas import no_pickles
from faas_project.asgi import application as app

no_pickles.forbid()

__all__ = ["app"]
