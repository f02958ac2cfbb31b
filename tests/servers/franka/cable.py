"""A cable that can be cut, between clients and whatever listens: `python cable.py FROM_IP TO_IP PORT[:TO_PORT] ...`.

SIGSTOP cuts it, SIGCONT mends it: connections stay open meanwhile, and nothing passes. Ports 1337 and 1338 are an arm's
and a hand's, whose states and commands go by UDP to where a client's Connect says; these pass through here as well.
"""

import contextlib
import selectors
import socket
import struct
import sys

FCI_HEADERS = {1337: struct.Struct("<III"), 1338: struct.Struct("<HII")}
"""Of the requests at the ports of arm and hand; Connect has number 0."""
PORTS = struct.Struct("<HH")
"""Payload of Connect: version, the client's UDP port."""


class Cable:
    def __init__(self, here, there, ports):
        self._here, self._there = here, there
        self._selector = selectors.DefaultSelector()
        for port, to_port in ports:
            listener = socket.create_server((here, port))
            self._selector.register(listener, selectors.EVENT_READ, (self._accept, (listener, to_port)))

    def pass_on(self):
        for key, _ in self._selector.select():
            if key.fileobj.fileno() >= 0:
                function, arguments = key.data
                function(*arguments)

    def _accept(self, listener, to_port):
        client, (peer, _) = listener.accept()
        try:
            server = socket.create_connection((self._there, to_port), 2.0)
        except OSError:
            client.close()
            return
        ends = [client, server]
        if to_port in FCI_HEADERS:
            client.settimeout(2.0)
            self._pass_connect(client, server, peer, FCI_HEADERS[to_port], ends)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.settimeout(2.0)
        self._selector.register(client, selectors.EVENT_READ, (self._forward, (client, server, ends)))
        self._selector.register(server, selectors.EVENT_READ, (self._forward, (server, client, ends)))

    def _pass_connect(self, client, server, peer, header, ends):
        """Has the states come here instead, and the commands too."""
        request = client.recv(header.size + PORTS.size, socket.MSG_WAITALL)
        version, port = PORTS.unpack_from(request, header.size)
        inner = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        inner.bind((server.getsockname()[0], 0))
        outer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        outer.bind((self._here, 0))
        outer.connect((peer, port))
        ends += [inner, outer]
        states = [None]
        """Where they come from: commands go there."""
        self._selector.register(inner, selectors.EVENT_READ, (self._state, (inner, outer, states)))
        self._selector.register(outer, selectors.EVENT_READ, (self._command, (outer, inner, states)))
        server.sendall(request[: header.size] + PORTS.pack(version, inner.getsockname()[1]))

    def _forward(self, source, sink, ends):
        try:
            chunk = source.recv(65536)
            sink.sendall(chunk)
        except OSError:
            chunk = b""
        if not chunk:
            for end in ends:
                self._selector.unregister(end)
                end.close()

    def _state(self, inner, outer, states):
        packet, states[0] = inner.recvfrom(4096)
        with contextlib.suppress(OSError):  # the client has gone, which TCP tells
            outer.send(packet)

    def _command(self, outer, inner, states):
        try:
            packet = outer.recv(4096)
        except OSError:
            return
        inner.sendto(packet, states[0])


def main(here, there, *ports):
    pairs = [tuple(map(int, (port.split(":") * 2)[:2])) for port in ports]
    cable = Cable(here, there, pairs)
    sys.stdout.write("plugged in\n")
    sys.stdout.flush()
    while True:
        cable.pass_on()


if __name__ == "__main__":
    main(*sys.argv[1:])
