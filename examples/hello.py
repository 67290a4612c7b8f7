"""Says hello from a slot, with nothing but `requests` and `dill`: python examples/hello.py [URL]

Where the service asks for a token, it is taken from FAAS_TOKEN.
"""

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
if "FAAS_TOKEN" in os.environ:
    api.headers["Authorization"] = f"Bearer {os.environ['FAAS_TOKEN']}"
answer = api.post(f"{url}/register_function", json={"name": "hello", "payload": serialize(hello)})
if answer.status_code == 401:
    sys.exit("this service asks for a token: say hello with FAAS_TOKEN=faas_… python examples/hello.py")
function = answer.json()
task = api.post(
    f"{url}/execute_function",
    json={"function_id": function["function_id"], "payload": serialize((("world",), {}))},
).json()
while (answer := api.get(f"{url}/result/{task['task_id']}?wait=10").json())["status"] in ("QUEUED", "RUNNING"):
    time.sleep(0.01)  # nothing, normally: ?wait= answers when the task has ended
print(deserialize(answer["result"]))
