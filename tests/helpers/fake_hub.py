"""A Hugging Face Hub on this machine: a server of a few files, that the real client is pointed to."""

import hashlib
import http.server
import logging
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER_COMMIT = "f" * 40
_OTHER = "/other-server/"


class FakeHub:
    """Serves `files`, {(repository, revision, name): content}, until it is closed.

    Attributes:
        commits: of the revisions; those that are not here do not exist.
        asked: the addresses that were asked for, the oldest first.
        delay: seconds before each of the next answers.
        said: what the client logged.
        links: whether files are served as large ones: the Hub answers with an address of another host, and says their
            digest and size itself.
        renamed: {former name of a repository: its name now}, to which a relative address leads.
        closed: {repository: (status, X-Error-Code)} of those that the asker may not read.
        token: that a client has to send; "" for none.
        etag: content -> digest under which it is served, by default that of large files.
    """

    def __init__(self) -> None:
        self.files: dict[tuple[str, str, str], bytes] = {}
        self.commits = {"main": COMMIT, "v1": OTHER_COMMIT, COMMIT: COMMIT, OTHER_COMMIT: OTHER_COMMIT}
        self.asked: list[str] = []
        self.delay: list[float] = []
        self.said: list[str] = []
        self.links = False
        self.renamed: dict[str, str] = {}
        self.closed: dict[str, tuple[int, str]] = {}
        self.token = ""
        self.etag: Callable[[bytes], str] = lambda content: hashlib.sha256(content).hexdigest()
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                hub.answer(self)

            do_GET = do_HEAD

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        repository, _, rest = request.path.removeprefix("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        revision = urllib.parse.unquote(revision)
        if request.path.startswith(_OTHER):
            return self._answer_of_the_other(request)
        if rest:
            self.asked.append(request.path)
        if self.delay:
            time.sleep(self.delay.pop(0))
        content = self.files[repository, revision, name] if (repository, revision, name) in self.files else None
        if repository in self.renamed:
            request.send_response(307)
            request.send_header("Location", f"/{self.renamed[repository]}/resolve/{rest}")
            content = b""
        elif self.token and request.headers["Authorization"] != f"Bearer {self.token}":
            content = self._refuse(request, 401, "RepoNotFound")
        elif repository in self.closed:
            content = self._refuse(request, *self.closed[repository])
        elif content is not None and self.links:
            digest = self.etag(content)
            request.send_response(302)
            request.send_header("Location", f"http://localhost:{self.server.server_port}{_OTHER}{digest}")
            request.send_header("X-Linked-Etag", f'"{digest}"')
            request.send_header("X-Linked-Size", str(len(content)))
            request.send_header(
                "ETag", f'"{hashlib.sha1(content, usedforsecurity=False).hexdigest()}"'
            )  # of the pointer
            request.send_header("X-Repo-Commit", self.commits[revision])
            request.send_header("Content-Length", "0")
            request.end_headers()
            return None
        elif content is None:
            wrong = "Entry" if revision in self.commits else "Revision"
            if all(repository != known for known, _, _ in self.files):
                wrong = "Repo"
            request.send_response(404)
            request.send_header("X-Error-Code", f"{wrong}NotFound")
            content = b""
        else:
            request.send_response(200)
            request.send_header("ETag", f'"{self.etag(content)}"')
        if revision in self.commits:
            request.send_header("X-Repo-Commit", self.commits[revision])
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(content)

    def _refuse(self, request: http.server.BaseHTTPRequestHandler, status: int, code: str) -> bytes:
        request.send_response(status)
        request.send_header("X-Error-Code", code)
        return b""

    def _answer_of_the_other(self, request: http.server.BaseHTTPRequestHandler) -> None:
        """Answers as the server of large files, which knows their digests, and no repository or commit."""
        digest = request.path.removeprefix(_OTHER)
        content = next(content for content in self.files.values() if self.etag(content) == digest)
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(content)

    def close(self) -> None:
        """From here on nothing listens at the address."""
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def fake_hub(monkeypatch: Any, cache: Any) -> Iterator[FakeHub]:
    """A `FakeHub` that huggingface_hub takes for the real one, with the folder `cache` for its cache."""
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    if hasattr(huggingface_hub, "close_session"):  # made under another environment, perhaps
        huggingface_hub.close_session()
    hub = FakeHub()
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            hub.said.append(record.getMessage())

    keep, logger = Keep(), logging.getLogger("huggingface_hub")
    logger.addHandler(keep)
    try:
        yield hub
    finally:
        logger.removeHandler(keep)
        hub.close()
