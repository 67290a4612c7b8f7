"""A web page that calls a function with plain JSON: python examples/page.py [URL]

Registers a function as text, then serves a page at http://127.0.0.1:8080 that calls it. The browser speaks to this
server, which passes the call on: a service lets no page of somebody else's speak to it.
"""

import http.server
import json
import os
import sys
import urllib.request

URL = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("FAAS_URL", "http://127.0.0.1:8000")
PORT = int(os.environ.get("PORT", "8080"))
SOURCE = """
def count(text):
    words = text.lower().split()
    return {"words": len(words), "longest": max(words, key=len, default=None)}
"""
PAGE = b"""<!doctype html><title>Words</title>
<textarea id=text rows=5 cols=60>Send a Python function, run it there, fetch its result.</textarea>
<button id=go>Count</button> <output id=out></output>
<script>
go.onclick = async () => {
  const answer = await fetch("/count", {method: "POST", body: JSON.stringify({args: [text.value]})});
  const {state, result, error} = await answer.json();
  out.textContent = state === "COMPLETED" ? `${result.words} words, longest: ${result.longest}` : error.message;
};
</script>
"""


def post(path, body):
    headers = {"Content-Type": "application/json"}
    if "FAAS_TOKEN" in os.environ:
        headers["Authorization"] = f"Bearer {os.environ['FAAS_TOKEN']}"
    request = urllib.request.Request(URL + path, body, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(PAGE, "text/html; charset=utf-8")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(post("/api/v1/functions/count/invoke?wait=30", body), "application/json")

    def answer(self, body, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


function = {"name": "count", "source": SOURCE, "entrypoint": "count", "reuse": True}
post("/api/v1/functions", json.dumps(function).encode())
server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
print(f"http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
