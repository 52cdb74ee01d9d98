"""Serve the page on this machine."""

from __future__ import annotations

import asyncio
import errno
import socket
import webbrowser
from collections.abc import Callable
from typing import TYPE_CHECKING

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.server.server import Server
from bokeh.settings import settings

from skspec.explore._session import Session

if TYPE_CHECKING:
    from skspec.explore._latent_space import LatentSpace

__all__ = ["LOOPBACK", "make_server", "serve"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PORT, N_PORTS = 5006, 20  # the first port that is tried, and how many
EVERYWHERE = ("0.0.0.0", "::", "")


def serve(
    space: LatentSpace,
    *,
    port: int | None = None,
    host: str = "127.0.0.1",
    title: str = "Latent space",
    n_points: int = 20_000,
    show: bool = False,
    announce: Callable[[str], object] = print,
) -> None:
    """Serve the page until interrupted.

    Parameters
    ----------
    space : LatentSpace
    port : int, optional
        0: any free one. Default: the first free one from 5006.
    host : str
        Address to listen on. With any other than that of this machine ("127.0.0.1"), everybody on the
        network can use the page.
    title : str
        Headline.
    n_points : int
        Stars drawn in the scatter at most, chosen at random.
    show : bool
        Open it in the browser.
    announce : callable
        Called with the address of the page, once it is served.

    Raises
    ------
    OSError
        When the port is taken, or the address is none of this machine's.
    ImportError
        Without bokeh (``pip install skspec[explore]``).
    """
    begin = {"port": port, "host": host, "title": title, "n_points": n_points}
    try:
        asyncio.run(_serve(space, begin, show, announce))
    except KeyboardInterrupt:
        """The way to end it."""


async def _serve(space, begin, show, announce):
    server = make_server(space, **begin)
    try:
        server.start()
        address = f"http://{_seen_from_here(begin['host'])}:{server.port}/"
        announce(address)
        if show:
            await asyncio.to_thread(webbrowser.open, address)
        await asyncio.Event().wait()
    finally:
        server.stop()


def make_server(space, *, port=None, host="127.0.0.1", **options):
    """A bokeh server of the page, bound to its port but not started, in the running event loop."""
    settings.resources = "server"  # its own JavaScript, from this machine
    port = _free_port(host, port)
    application = Application(FunctionHandler(lambda doc: Session.open(doc, space, **options)))
    return Server(
        {"/": application},
        port=port,
        address=host,
        allow_websocket_origin=[f"{name}:{port}" for name in _names_of(host)],
    )


def _free_port(host, port):
    """The port that is asked for, or the first free one."""
    for wanted in range(PORT, PORT + N_PORTS) if port is None else [port]:
        try:
            with socket.create_server((host, wanted), family=_family(host)) as bound:
                return bound.getsockname()[1]
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port is not None:
                raise
    return _free_port(host, 0)


def _family(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _names_of(host):
    """Under which names a browser may reach the page: others cannot open a connection to it."""
    if host in LOOPBACK:
        return ["127.0.0.1", "localhost"]
    names = {host, socket.gethostname(), socket.getfqdn()} - set(EVERYWHERE)
    if host in EVERYWHERE:
        names |= {"127.0.0.1", "localhost"}
        try:
            names |= {found[4][0] for found in socket.getaddrinfo(socket.gethostname(), None)}
        except OSError:
            """A machine that does not know its own name is reached by its address only."""
    return sorted(name for name in names if ":" not in name)


def _seen_from_here(host):
    return "localhost" if host in (*EVERYWHERE, "::1") else host
