"""Downloads, from a server of this process."""

import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from evamm.checkpoints import CheckpointError, fetch_weights, load_checkpoint, write_checkpoint

from .common import canonical, trunk


class Server:
    """Answers with `files`; counts requests."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.break_off = False
        self.delay = 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.path)
                time.sleep(outer.delay)
                content = outer.files.get(self.path.split('?')[0])
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header('Content-Length', str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if outer.break_off else content)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.url = f'http://127.0.0.1:{self.server.server_port}'


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv('EVAMM_HOME', str(tmp_path / 'home'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    server = Server()
    thread = threading.Thread(target=server.server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.server.shutdown()
    server.server.server_close()
    thread.join()


def cached(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / 'home' / 'checkpoints').rglob('*') if path.is_file()]


def test_downloaded_once(server: Server, tmp_path: Path) -> None:
    server.files['/org/a/file.pth'] = b'one'
    server.files['/org/b/file.pth'] = b'two'
    first = fetch_weights(f'{server.url}/org/a/file.pth')
    assert first.read_bytes() == b'one' and tmp_path in first.parents
    assert fetch_weights(f'{server.url}/org/a/file.pth') == first
    assert len(server.requests) == 1
    # The same file name at another address is another file.
    assert fetch_weights(f'{server.url}/org/b/file.pth').read_bytes() == b'two'
    assert fetch_weights(f'{server.url}/org/a/file.pth?v=2') != first


def test_hash_of_the_download(server: Server, tmp_path: Path) -> None:
    server.files['/file.pth'] = b'content'
    url = f'{server.url}/file.pth'
    with pytest.raises(CheckpointError, match='expected sha256 00000000'):
        fetch_weights(url, sha256='0' * 8)
    assert cached(tmp_path) == []
    digest = hashlib.sha256(b'content').hexdigest()
    path = fetch_weights(url, sha256=digest)
    path.write_bytes(b'rotten')
    with pytest.raises(CheckpointError, match='found'):
        fetch_weights(url, sha256=digest)


def test_broken_connection_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.files['/file.pth'] = bytes(1000)
    server.break_off = True
    with pytest.raises(CheckpointError, match='expected 1000 bytes, got 500'):
        fetch_weights(f'{server.url}/file.pth')
    assert cached(tmp_path) == []


def test_no_such_file_and_no_server(server: Server, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match='Not Found.*put it at .*nothing.pth'):
        fetch_weights(f'{server.url}/nothing.pth')
    with pytest.raises(CheckpointError, match='could not be downloaded'):
        fetch_weights('http://127.0.0.1:9/file.pth')
    with pytest.raises(CheckpointError, match='expected the address of a file'):
        fetch_weights(server.url)


def test_path_cannot_leave_the_cache(server: Server, tmp_path: Path) -> None:
    server.files['/%2e%2e/%2e%2e/up.pth'] = b'x'
    assert tmp_path / 'home' in fetch_weights(f'{server.url}/%2e%2e/%2e%2e/up.pth').parents


def test_processes_wait_for_each_other(server: Server) -> None:
    """All processes of a distributed run load the same address at the same time."""
    server.files['/file.pth'] = bytes(1 << 20)
    server.delay = 0.1
    threads = [
        threading.Thread(target=fetch_weights, args=(f'{server.url}/file.pth',)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.requests == ['/file.pth']


def test_large_downloads_show_progress(server: Server, capsys: pytest.CaptureFixture) -> None:
    server.files['/file.pth'] = bytes(20 << 20)
    fetch_weights(f'{server.url}/file.pth')
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= 11 and lines[-1].endswith('/file.pth: 100 % of 20 MiB')


def test_local_path_is_itself(tmp_path: Path) -> None:
    assert fetch_weights(tmp_path / 'file.pth') == tmp_path / 'file.pth'


def test_address_is_loaded(server: Server, tmp_path: Path) -> None:
    state = canonical('tiny')
    write_checkpoint(state, tmp_path / 'file.safetensors')
    server.files['/file.safetensors'] = (tmp_path / 'file.safetensors').read_bytes()
    model = trunk('tiny')
    load_checkpoint(model, f'{server.url}/file.safetensors')
    assert torch.equal(model.cls_token, state['cls_token'])
