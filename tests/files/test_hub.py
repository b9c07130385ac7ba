"""A local stand-in for the hub: the requests it gets, the cache, and time-outs."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.command_line import assert_names
from support.synthetic import BERT_CONFIG

COMMIT = "a" * 40
FILES = {
    "config.json": json.dumps(BERT_CONFIG).encode(),
    "1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}',
    "harm.py": b"raise SystemExit",
}

CLIENT = """
import sys
from harness.files import hub
from harness.models.backbones import find_backbone
from harness.errors import HarnessError

hub.PROBE_S = 2.0
try:
    print(find_backbone("somebody/theirs").pooling)
except HarnessError as error:
    print(error)
"""


@dataclass
class Hub:
    """Address and state of the server."""

    address: str = ""
    api: str = "up"
    """up, busy (429) or silent."""
    stopped: threading.Event = field(default_factory=threading.Event)

    def respond(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """Return status, content and headers."""
        if path.startswith("/api/models/somebody/theirs"):
            if self.api == "silent":
                self.stopped.wait(60)
            if self.api != "up":
                return 429, b"", {}
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": "b" * 40}
                for name, content in FILES.items()
            ]
            about = {
                "id": "somebody/theirs",
                "sha": COMMIT,
                "siblings": [{"rfilename": name} for name in FILES],
            }
            return (
                200,
                json.dumps(tree if "/tree/" in path else about).encode(),
                {"Content-Type": "application/json"},
            )
        name = path.partition("/resolve/")[2].partition("/")[2]
        if name not in FILES:
            return 404, b"", {"X-Error-Code": "EntryNotFound"}
        return (
            200,
            FILES[name],
            {"ETag": f'"{hashlib.sha1(FILES[name]).hexdigest()}"', "X-Repo-Commit": COMMIT},
        )


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A local server with one repository, a sentence encoder."""
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, content, headers = state.respond(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        state.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield state
        state.stopped.set()
        server.shutdown()


def found(hub: Hub, home: Path) -> str:
    """Return the repository's pooling as found by a separate process."""
    clear = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HARNESS_")) and "proxy" not in name.lower()
    }
    environment = clear | {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    run = subprocess.run(
        [sys.executable, "-c", CLIENT],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return run.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize(("api", "reason"), [("busy", 429), ("silent", 2)])
def test_failing_hub_leaves_no_part(hub: Hub, tmp_path: Path, api: str, reason: int) -> None:
    """A hub that cannot serve a repository leaves no part of it that would look complete.

    Its file server always answers. With only the configuration in the cache, the pooling would be
    assumed to be BERT's."""
    hub.api = api
    assert_names(found(hub, tmp_path), "somebody/theirs", reason)
    hub.api = "up"
    assert found(hub, tmp_path) == "mean"
    hub.api = api
    assert found(hub, tmp_path) == "mean"  # from the cache
    kept = {path.name for path in tmp_path.rglob("snapshots/*/**/*") if path.is_file()}
    assert kept == {"config.json"}
