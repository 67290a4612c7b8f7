"""The ASGI application under the name that `uvicorn main:app` asks for."""

from faas_project.asgi import application as app

__all__ = ["app"]
