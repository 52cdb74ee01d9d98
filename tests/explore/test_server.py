import asyncio
import os
import signal
import socket
import urllib.request

import pytest

pytest.importorskip("bokeh")

from skspec.explore._server import _names_of, make_server, serve


def bound(space, **options):
    """Addresses and port of a server, and from where its page may connect."""

    async def look():
        server = make_server(space, **options)
        addresses = {s.getsockname()[0] for s in server._http._sockets.values()}
        server.stop()
        return addresses, server.port, server._tornado.websocket_origins

    return asyncio.run(look())


def test_loopback_unless_told(space):
    addresses, port, origins = bound(space, port=0)
    assert addresses == {"127.0.0.1"} and port > 0
    assert origins == {f"127.0.0.1:{port}", f"localhost:{port}"}


def test_another_address(space):
    addresses, port, origins = bound(space, port=0, host="0.0.0.0")
    assert addresses == {"0.0.0.0"} and f"{socket.gethostname()}:{port}" in origins
    assert not any("*" in origin for origin in origins)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "192.168.1.5", "fe80::1"])
def test_names_are_hosts(host):
    assert _names_of(host) and not any(set(name) & set("*:") for name in _names_of(host))


def test_a_taken_port(space):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(OSError):
            bound(space, port=taken.getsockname()[1])


def test_the_next_free_port(space, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr("skspec.explore._server.PORT", taken.getsockname()[1])
        assert bound(space)[1] > taken.getsockname()[1]


def test_served_until_interrupted(space, monkeypatch):
    said, pages, tasks = [], [], []

    def announce(address):
        said.append(address)
        from tornado.httpclient import AsyncHTTPClient

        async def look():
            pages.append((await AsyncHTTPClient().fetch(address)).body.decode())
            os.kill(os.getpid(), signal.SIGINT)

        tasks.append(asyncio.get_running_loop().create_task(look()))

    serve(space, port=0, title="toy <model>", announce=announce)
    assert said[0].startswith("http://127.0.0.1:")
    assert "toy &lt;model&gt; · skspec" in pages[0] and "https://" not in pages[0]
    with pytest.raises(OSError):
        urllib.request.urlopen(said[0], timeout=1)
