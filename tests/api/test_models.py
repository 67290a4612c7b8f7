"""The tables as the migrations make them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from api import moves
from api.models import ANY_QUEUE, LOCAL_USER, Attempt, Function, Instance, Payload, Queue, Result, Task, new_id
from everythingfaas.status import State

from .conftest import NOW, Workshop, committed, ended


def test_the_migrations_make_what_the_models_say(database: str) -> None:
    call_command("makemigrations", "api", check=True, dry_run=True, verbosity=0)


def test_the_first_rows_are_there(database: str) -> None:
    local = get_user_model().objects.get(username=LOCAL_USER)
    assert not local.has_usable_password()
    assert Queue.objects.get(requirements="").pk == ANY_QUEUE
    assert Instance.objects.get().generation == 1


def test_a_second_queue_gets_another_number(database: str) -> None:
    assert Queue.objects.create(requirements="python=3.12").pk not in {None, ANY_QUEUE}


def test_ids_are_in_order_of_time() -> None:
    ids = [new_id() for _ in range(1000)]
    assert ids == sorted(ids)
    assert ids[0].version == 7


def test_rows_introduce_themselves(workshop: Workshop) -> None:
    claimed = workshop.running()
    with committed() as cursor:
        moves.end(cursor, [ended(claimed)])
    task = Task.objects.select_related("function").get()
    assert str(task) == f"{claimed.task} COMPLETED"
    assert str(task.function) == "double"
    assert str(task.function.blob).endswith("(8 bytes)")
    assert str(task.function.queue) == "any Python"
    assert str(Payload.objects.get()) == f"arguments of {claimed.task}"
    assert str(Result.objects.get()) == f"result of {claimed.task}"
    assert str(Attempt.objects.get()) == f"attempt 1 of {claimed.task}: RETURNED"
    assert task.attempts.get().worker == "w1"
    assert "here" in str(task.dispatcher)
    assert str(Instance.objects.get()) == "generation 1"


def test_the_orm_sees_what_the_statements_write(workshop: Workshop) -> None:
    (id_,) = workshop.submit(payload=b"\x00\xff", run_after=NOW + 0.25)
    task = Task.objects.get()
    assert task.pk == id_
    assert task.created == datetime.fromtimestamp(NOW, UTC)
    assert task.run_after == datetime.fromtimestamp(NOW + 0.25, UTC)
    assert task.started is None
    assert task.owner.username == LOCAL_USER
    assert task.state == State.WAITING
    assert bytes(task.payload.data) == b"\x00\xff"


def test_the_statements_see_what_the_orm_writes(workshop: Workshop) -> None:
    task = Task.objects.create(owner_id=workshop.owner, function_id=workshop.function)
    Payload.objects.create(task=task, data=b"x")
    (claimed,) = workshop.claim()
    assert claimed.task == task.pk
    assert claimed.created == pytest.approx(task.created.timestamp(), abs=1e-6)


class TestUnixTimeField:
    def test_compares_with_datetimes(self, workshop: Workshop) -> None:
        workshop.submit()
        moment = datetime.fromtimestamp(NOW, UTC)
        for found, lookup in (
            (True, {"created": moment}),
            (True, {"created__lte": moment}),
            (False, {"created__gt": moment}),
            (True, {"created__range": (moment - timedelta(1), moment)}),
            (True, {"created__in": [moment]}),
            (True, {"created__gte": NOW}),
            (True, {"started__isnull": True}),
        ):
            assert Task.objects.filter(**lookup).exists() is found, lookup

    def test_is_updated_and_aggregated(self, workshop: Workshop) -> None:
        from django.db.models import Max

        workshop.submit()
        moment = timezone.now()
        Task.objects.update(finished=moment)
        assert Task.objects.aggregate(last=Max("finished"))["last"] == moment
        assert Task.objects.values_list("finished", flat=True).get() == moment

    def test_orders(self, workshop: Workshop) -> None:
        workshop.submit(created=NOW + 1)
        workshop.submit(created=NOW)
        assert [t.created.timestamp() for t in Task.objects.order_by("created")] == [NOW, NOW + 1]


def test_deleting_a_task_takes_what_belongs_to_it(workshop: Workshop) -> None:
    claimed = workshop.running()
    with committed() as cursor:
        moves.end(cursor, [ended(claimed)])
    Task.objects.get().delete()
    assert not Payload.objects.exists()
    assert not Result.objects.exists()
    assert not Attempt.objects.exists()
    Function.objects.get().delete()


def test_a_function_with_tasks_is_not_deleted(workshop: Workshop) -> None:
    from django.db.models import ProtectedError

    workshop.submit()
    with pytest.raises(ProtectedError):
        Function.objects.get().delete()


def test_the_busy_table_has_the_indexes_it_needs_and_no_more(database: str) -> None:
    with connection.cursor() as cursor:
        constraints = connection.introspection.get_constraints(cursor, "api_task")
    indexes = {
        name for name, constraint in constraints.items() if constraint["index"] and not constraint["primary_key"]
    }
    unique = {name for name, constraint in constraints.items() if constraint["unique"]}
    assert indexes - unique == {
        "task_claim",
        "task_due",
        "task_held",
        "task_expiry",
        "task_failed",
        "task_owner",
        "task_retries",
    }
    assert not [name for name, constraint in constraints.items() if constraint["foreign_key"]]
