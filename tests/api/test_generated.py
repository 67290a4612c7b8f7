"""Requests that nobody would think of, generated from the description of the API: none is answered by a 5xx.

The same ones each time: schemathesis chooses by a fixed seed.
"""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error

from api import openapi
from tests.access import People, Person
from tests.web import on_sqlite

pytestmark = on_sqlite

#: For each operation.
EXAMPLES = 60

# 503 is what /readyz is there to say.
schema = schemathesis.openapi.from_dict(openapi.document()).exclude(path="/readyz")


@pytest.fixture
def person(people: People) -> Person:
    return people.person("mallory", "read", "submit", "worker", "admin", administrator=True)


@pytest.fixture
def known(person: Person) -> dict[str, str]:
    """Ids of things that there are: what is generated is of nothing."""
    task, function = person.submit()
    return {"task_id": task, "function_id": function, "token_id": str(person.row.pk)}


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_request_is_answered_by_a_5xx(case: Any, person: Person, known: dict[str, str]) -> None:
    for ids in ({}, known) if case.path_parameters else ({},):
        if case.method == "DELETE" and ids:
            continue  # it would end the token that this comes with
        case.path_parameters |= {name: value for name, value in ids.items() if name in case.path_parameters}
        if isinstance(case.query, dict) and "wait" in case.query:
            case.query["wait"] = 0.0  # or each would last as long as it says
        response = case.call(base_url=person.web.url, headers=person.headers)
        case.validate_response(response, checks=[not_a_server_error])
