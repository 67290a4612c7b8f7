"""Says hello from a slot, with nothing but `requests` and `dill`: python examples/hello.py [URL]"""

import codecs
import os
import sys
import time

import dill
import requests

url = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("FAAS_URL", "http://127.0.0.1:8000")


def serialize(obj):
    return codecs.encode(dill.dumps(obj, recurse=True), "base64").decode()


def deserialize(text):
    return dill.loads(codecs.decode(text.encode(), "base64"))


def hello(name):
    import platform

    return f"Hello {name}, this is Python {platform.python_version()} on {platform.node()}."


api = requests.Session()
function = api.post(f"{url}/register_function", json={"name": "hello", "payload": serialize(hello)}).json()
task = api.post(
    f"{url}/execute_function",
    json={"function_id": function["function_id"], "payload": serialize((("world",), {}))},
).json()
while (answer := api.get(f"{url}/result/{task['task_id']}?wait=10").json())["status"] in ("QUEUED", "RUNNING"):
    time.sleep(0.01)  # nothing, normally: ?wait= answers when the task has ended
print(deserialize(answer["result"]))
