"""A Hub of our own on the loopback interface: as much of its HTTP interface as the real client uses, in memory.

Faults are scripted, every request is logged. Large files live under another host name (`localhost` instead of
`127.0.0.1`), as on the real Hub, so that a token that travels there is seen.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".parquet", ".pt", ".bin", ".png")
"""Endings of files that the Hub keeps as large files."""

COMMITS_PER_PAGE = 50


@dataclass(frozen=True)
class Blob:
    """One file of a commit. `content` is what a reader gets."""

    content: bytes
    large: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """What git calls this file: of a large one, its pointer."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n".encode()
        stored = pointer if self.large else self.content
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()


@dataclass(frozen=True)
class Commit:
    sha: str
    parent: str | None
    title: str
    message: str
    tree: dict[str, Blob]


@dataclass
class Repo:
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def resolve(self, revision: str) -> Commit | None:
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        return self.commits.get(sha)

    def add(self, branch: str, title: str, message: str, tree: dict[str, Blob]) -> Commit:
        parent = self.branches.get(branch)
        text = json.dumps([parent, title, message, {path: blob.sha256 for path, blob in sorted(tree.items())}])
        commit = Commit(hashlib.sha1(text.encode()).hexdigest(), parent, title, message, tree)
        self.commits[commit.sha] = commit
        self.branches[branch] = commit.sha
        return commit

    def history(self, revision: str) -> list[Commit]:
        """Newest first."""
        found, commit = [], self.resolve(revision)
        while commit is not None:
            found.append(commit)
            commit = self.commits.get(commit.parent or "")
        return found

    def state(self) -> dict[str, Any]:
        """Everything a reader can see, for comparing two ways of getting there."""
        return {"private": self.private, "branches": dict(self.branches), "tags": dict(self.tags)}


@dataclass
class Fault:
    """Answers the next `count` fitting requests wrongly, after passing over `skip` of them.

    kind: a status; `drop` (connection closed, nothing done), `lose` (done, but the answer never arrives),
    `hang` (never answered), `corrupt` (one byte changed), `short` (half of the body).
    """

    method: str
    pattern: str
    kind: int | str
    count: int = 1
    skip: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"error":"scripted"}'

    def takes(self, method: str, path: str) -> bool:
        if self.count <= 0 or method != self.method or not re.search(self.pattern, path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.count -= 1
        return True


@dataclass(frozen=True)
class Request:
    """What arrived."""

    method: str
    path: str
    host: str
    headers: dict[str, str]
    body: bytes


class HubDouble(ThreadingHTTPServer):
    """The server. `before` and `after` are called around each request with its number, from the server's thread."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.collections: dict[str, list[str]] = {}
        self.faults: list[Fault] = []
        self.log: list[Request] = []
        self.lock = threading.RLock()
        self.closing = threading.Event()
        self.before: Callable[[int, Request], None] = lambda number, request: None
        self.after: Callable[[int, Request], None] = lambda number, request: None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def blob_host(self) -> str:
        return f"http://localhost:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken pipes are part of the game."""

    def create(self, repo_id: str, private: bool = True) -> Repo:
        repo = self.repos[repo_id] = Repo(private)
        repo.add("main", "initial commit", "", {".gitattributes": Blob(b"*.safetensors filter=lfs\n", False)})
        return repo

    def commit(self, repo_id: str, branch: str, title: str, files: dict[str, bytes], message: str = "") -> str:
        """A commit by somebody else; files are added to what is there."""
        repo = self.repos[repo_id]
        before = repo.history(branch)
        tree = dict(before[0].tree) if before else {}
        tree |= {path: Blob(content, path.endswith(LARGE)) for path, content in files.items()}
        return repo.add(branch, title, message, tree).sha

    def requests(self, method: str, pattern: str) -> list[Request]:
        return [request for request in self.log if request.method == method and re.search(pattern, request.path)]


@contextmanager
def hub_double() -> Iterator[HubDouble]:
    """A running double; stopped at the end, also if something still waits for an answer."""
    server = HubDouble()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


class Answer(Exception):
    """An error answer."""

    def __init__(self, status: int, code: str = "", text: str = "") -> None:
        self.status, self.code, self.text = status, code, text


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: HubDouble

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        hub, body = self.server, self._body()
        request = Request(
            self.command,
            self.path,
            self.headers.get("Host", ""),
            {name.lower(): value for name, value in self.headers.items()},
            body,
        )
        with hub.lock:
            number = len(hub.log)
            hub.log.append(request)
            fault = next((fault for fault in hub.faults if fault.takes(self.command, self.path)), None)
        hub.before(number, request)
        kind = None if fault is None else fault.kind
        if kind == "hang":
            hub.closing.wait()
        if kind in ("drop", "hang"):
            self._hang_up()
            return
        if fault is not None and isinstance(kind, int):
            self._send(kind, fault.body, fault.headers)
            return
        try:
            with hub.lock:
                status, content, headers = self._route(body)
        except Answer as answer:
            code = {"X-Error-Code": answer.code} if answer.code else {}
            status, content, headers = answer.status, json.dumps({"error": answer.text}).encode(), code
        hub.after(number, request)
        if kind == "lose":
            self._hang_up()
            return
        if kind == "corrupt" and content:
            content = bytes([content[0] ^ 1]) + content[1:]
        self._send(status, content, headers, cut=kind == "short")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            pieces = []
            while size := int(self.rfile.readline().strip() or b"0", 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, status: int, content: bytes, headers: dict[str, str], cut: bool = False) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self._hang_up()

    def _route(self, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        path = urlsplit(self.path).path
        for method, pattern, handle in ROUTES:
            found = re.fullmatch(pattern, path)
            if method == self.command and found:
                result = handle(self, *[unquote(piece or "") for piece in found.groups()], body)
                return result if isinstance(result, tuple) else (200, json.dumps(result).encode(), {})
        raise Answer(404, "", f"no such address: {self.command} {path}")

    def _repo(self, name: str) -> Repo:
        repo = self.server.repos.get(name)
        if repo is None or (repo.private and "Authorization" not in self.headers):
            raise Answer(404, "RepoNotFound", "Repository not found")
        return repo

    def _commit_of(self, name: str, revision: str) -> Commit:
        commit = self._repo(name).resolve(revision)
        if commit is None:
            raise Answer(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _may_write(self) -> None:
        if not (self.headers.get("Authorization") or "").startswith("Bearer "):
            raise Answer(401, "", "Invalid credentials")

    def create_repo(self, body: bytes) -> Any:
        self._may_write()
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if name in self.server.repos:
            raise Answer(409, "", "You already created this model repo")
        self.server.create(name, private=asked.get("private") is True or asked.get("visibility") == "private")
        return {"url": f"{self.server.endpoint}/{name}", "name": name, "id": name}

    def info(self, name: str, revision: str, body: bytes) -> Any:
        commit, repo = self._commit_of(name, revision or "main"), self._repo(name)
        files = [{"rfilename": path} for path in commit.tree]
        return {
            "_id": "1",
            "id": name,
            "modelId": name,
            "sha": commit.sha,
            "private": repo.private,
            "siblings": files,
            "tags": [],
        }

    def refs(self, name: str, body: bytes) -> Any:
        repo = self._repo(name)
        branches = [{"name": key, "ref": f"refs/heads/{key}", "targetCommit": sha} for key, sha in repo.branches.items()]
        tags = [{"name": key, "ref": f"refs/tags/{key}", "targetCommit": sha} for key, sha in repo.tags.items()]
        return {"branches": branches, "converts": [], "tags": tags}

    def branch(self, name: str, branch: str, body: bytes) -> Any:
        self._may_write()
        repo, asked = self._repo(name), json.loads(body or b"{}")
        if branch in repo.branches:
            raise Answer(409, "", "Reference already exists")
        repo.branches[branch] = self._commit_of(name, asked.get("startingPoint", "main")).sha
        return {}

    def tag(self, name: str, revision: str, body: bytes) -> Any:
        self._may_write()
        repo, tag = self._repo(name), json.loads(body)["tag"]
        if tag in repo.tags:
            raise Answer(409, "", "Tag reference exists already")
        repo.tags[tag] = self._commit_of(name, revision).sha
        return {}

    def commits(self, name: str, revision: str, body: bytes) -> Any:
        self._commit_of(name, revision)
        page = int(parse_qs(urlsplit(self.path).query).get("p", ["0"])[0])
        history = self._repo(name).history(revision)
        shown = history[page * COMMITS_PER_PAGE : (page + 1) * COMMITS_PER_PAGE]
        content = [
            {"id": c.sha, "authors": [], "date": "2026-01-01T00:00:00.000Z", "title": c.title, "message": c.message}
            for c in shown
        ]
        address = f"{self.server.endpoint}{urlsplit(self.path).path}?p={page + 1}"
        more = {"Link": f'<{address}>; rel="next"'} if (page + 1) * COMMITS_PER_PAGE < len(history) else {}
        return 200, json.dumps(content).encode(), more

    def tree(self, name: str, revision: str, folder: str, body: bytes) -> Any:
        commit = self._commit_of(name, revision)
        return [_described(path, blob) for path, blob in commit.tree.items() if path.startswith(folder)]

    def paths_info(self, name: str, revision: str, body: bytes) -> Any:
        commit = self._commit_of(name, revision)
        if (self.headers.get("Content-Type") or "").startswith("application/json"):
            asked = json.loads(body)["paths"]
        else:
            asked = parse_qs(body.decode()).get("paths", [])
        return [_described(path, commit.tree[path]) for path in asked if path in commit.tree]

    def preupload(self, name: str, revision: str, body: bytes) -> Any:
        self._may_write()
        tree, answers = self._commit_of(name, revision).tree, []
        for file in json.loads(body)["files"]:
            large, there = file["path"].endswith(LARGE), tree.get(file["path"])
            oid = None if there is None else there.sha256 if there.large else there.oid
            mode = "lfs" if large else "regular"
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": answers}

    def batch(self, name: str, body: bytes) -> Any:
        self._may_write()
        objects = []
        for asked in json.loads(body)["objects"]:
            oid, size = asked["oid"], asked["size"]
            answer: dict[str, Any] = {"oid": oid, "size": size}
            if oid not in self.server.objects:
                put = {"href": f"{self.server.blob_host}/upload/{oid}"}
                answer["actions"] = {"upload": put, "verify": {"href": f"{self.server.endpoint}/verify/{oid}"}}
            objects.append(answer)
        return {"transfer": "basic", "objects": objects}

    def upload(self, oid: str, body: bytes) -> Any:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Answer(400, "", "the content is not what its name says")
        self.server.objects[oid] = body
        return 200, b"", {"ETag": f'"{oid}"'}

    def verify(self, oid: str, body: bytes) -> Any:
        if oid not in self.server.objects:
            raise Answer(404, "", "not uploaded")
        return {}

    def commit(self, name: str, branch: str, body: bytes) -> Any:
        self._may_write()
        repo, lines = self._repo(name), [json.loads(line) for line in body.splitlines() if line]
        before = self._commit_of(name, branch)
        header, tree = lines[0]["value"], dict(before.tree)
        if header.get("parentCommit") not in (None, before.sha):
            raise Answer(412, "", "A commit has happened since. Please refresh and try again.")
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                tree[value["path"]] = Blob(base64.b64decode(value["content"]), False)
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.server.objects:
                    raise Answer(400, "", f"large file {value['path']} was not uploaded")
                tree[value["path"]] = Blob(self.server.objects[value["oid"]], True)
            elif line["key"] == "deletedFile":
                del tree[value["path"]]
        message = f"{header['summary']}\n\n{header.get('description') or ''}"
        made = repo.add(branch, header["summary"], header.get("description") or "", tree)
        assert message
        return {"success": True, "commitOid": made.sha, "commitUrl": f"{self.server.endpoint}/{name}/commit/{made.sha}"}

    def resolve(self, name: str, revision: str, path: str, body: bytes) -> Any:
        commit = self._commit_of(name, revision)
        blob, facts = commit.tree.get(path), {"X-Repo-Commit": commit.sha}
        if blob is None:
            raise Answer(404, "EntryNotFound", "Entry not found")
        if not blob.large:
            return 200, blob.content, {**facts, "ETag": f'"{blob.oid}"', "Content-Type": "text/plain"}
        linked = {"X-Linked-Size": str(len(blob.content)), "X-Linked-Etag": f'"{blob.sha256}"'}
        self.server.objects[blob.sha256] = blob.content
        return 302, b"", {**facts, **linked, "Location": f"{self.server.blob_host}/blob/{blob.sha256}"}

    def blob(self, oid: str, body: bytes) -> Any:
        return 200, self.server.objects[oid], {"ETag": f'"{oid}"', "Content-Type": "application/octet-stream"}

    def collection(self, slug: str, body: bytes) -> Any:
        self._may_write()
        items, asked = self.server.collections.setdefault(slug, []), json.loads(body)["item"]["id"]
        if asked in items:
            raise Answer(409, "", "already there")
        items.append(asked)
        return self.collection_info(slug, b"")

    def collection_info(self, slug: str, body: bytes) -> Any:
        facts = {"slug": slug, "title": slug, "owner": {}, "lastUpdated": "2026-01-01T00:00:00.000Z", "gating": False}
        return {**facts, "items": [], "private": False, "theme": "blue", "position": 0, "upvotes": 0, "description": ""}


def _described(path: str, blob: Blob) -> dict[str, Any]:
    facts: dict[str, Any] = {"type": "file", "path": path, "oid": blob.oid, "size": len(blob.content)}
    if blob.large:
        facts["lfs"] = {"oid": blob.sha256, "size": len(blob.content), "pointerSize": 134}
    return facts


MODEL, REVISION = r"/api/models/([^/]+/[^/]+)", r"([^/]+)"
ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("POST", "/api/repos/create", Handler.create_repo),
    ("POST", "/api/validate-yaml", lambda handler, body: {"errors": [], "warnings": []}),
    ("GET", "/api/whoami-v2", lambda handler, body: {"type": "user", "name": "me"}),
    ("GET", MODEL + "(?:/revision/([^/]+))?", Handler.info),
    ("GET", MODEL + "/refs", Handler.refs),
    ("POST", f"{MODEL}/branch/{REVISION}", Handler.branch),
    ("POST", f"{MODEL}/tag/{REVISION}", Handler.tag),
    ("GET", f"{MODEL}/commits/{REVISION}", Handler.commits),
    ("GET", f"{MODEL}/tree/{REVISION}/?(.*)", Handler.tree),
    ("POST", f"{MODEL}/paths-info/{REVISION}", Handler.paths_info),
    ("POST", f"{MODEL}/preupload/{REVISION}", Handler.preupload),
    ("POST", f"{MODEL}/commit/{REVISION}", Handler.commit),
    ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", "/upload/([0-9a-f]{64})", Handler.upload),
    ("POST", "/verify/([0-9a-f]{64})", Handler.verify),
    ("GET", f"/([^/]+/[^/]+)/resolve/{REVISION}/(.+)", Handler.resolve),
    ("HEAD", f"/([^/]+/[^/]+)/resolve/{REVISION}/(.+)", Handler.resolve),
    ("GET", "/blob/([0-9a-f]{64})", Handler.blob),
    ("POST", "/api/collections/([^/]+/?[^/]*)/items", Handler.collection),
    ("GET", "/api/collections/([^/]+/?[^/]*)", Handler.collection_info),
]
