"""A TCP server that does to each connection what it is told, byte for byte.

Usage: peer.py DIR [CERTIFICATE KEY]: the latter for TLS.  DIR/script is JSON, a list of lists of steps: one list for each connection in turn, the last for
all that follow.  DIR/port gets the port; DIR/received a JSON line for all that a "read" step took: {"connection": n,
"text": "..."} (each byte a character); DIR/closed a line for each connection that has been closed.

Steps: ["read", END] up to and with END; ["http"] a whole request; ["redis", N] N commands; ["send", TEXT];
["drip", TEXT, SECONDS] byte by byte; ["flood", TEXT, SECONDS] again and again, that long at most; ["hang"] until the
other side goes; ["pause", SECONDS]; ["reset"].  At the end of its steps a connection is closed.
"""
import json
import os
import re
import socket
import ssl
import struct
import sys
import threading
import time

where = sys.argv[1]
lock = threading.Lock()


class Connection:
    def __init__(self, sock, number):
        self.sock, self.number, self.buffer = sock, number, b""

    def more(self):
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError
        self.buffer += data

    def take(self, n):
        while len(self.buffer) < n:
            self.more()
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def until(self, end):
        while end not in self.buffer:
            self.more()
        return self.take(self.buffer.index(end) + len(end))

    def note(self, data):
        line = json.dumps({"connection": self.number, "text": data.decode("latin-1")}) + "\n"
        with lock, open(where + "/received", "a", encoding="ascii") as log:
            log.write(line)

    def read(self, end):
        self.note(self.until(end.encode("latin-1")))

    def http(self):
        head = self.until(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        self.note(head + self.take(int(length[1]) if length else 0))

    def redis(self, n=1):
        for _ in range(n):
            data = self.until(b"\r\n")
            for _ in range(int(data[1:])):
                size = self.until(b"\r\n")
                data += size + self.take(int(size[1:]) + 2)
            self.note(data)

    def send(self, text):
        self.sock.sendall(text.encode("latin-1"))

    def drip(self, text, seconds):
        for char in text:
            self.send(char)
            time.sleep(seconds)

    def flood(self, text, seconds):
        end, data = time.monotonic() + seconds, text.encode("latin-1")
        while time.monotonic() < end:
            self.sock.sendall(data)

    def hang(self):
        while True:
            self.more()

    def pause(self, seconds):
        time.sleep(seconds)

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def run(self, steps, tls):
        try:
            if tls:
                self.sock = tls.wrap_socket(self.sock, server_side=True)
            for name, *args in steps:
                getattr(self, name)(*args)
        except OSError:
            pass
        self.sock.close()
        with lock, open(where + "/closed", "a", encoding="ascii") as log:
            log.write("%d\n" % self.number)


def main():
    with open(where + "/script", encoding="latin-1") as file:
        script = json.load(file)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if len(sys.argv) > 2 else None
    if tls:
        tls.load_cert_chain(sys.argv[2], sys.argv[3])
    listener = socket.create_server(("127.0.0.1", 0))
    with open(where + "/port.new", "w", encoding="ascii") as file:
        file.write("%d\n" % listener.getsockname()[1])
    os.rename(where + "/port.new", where + "/port")
    number = 0
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        steps = script[min(number, len(script) - 1)]
        number += 1
        threading.Thread(target=Connection(sock, number).run, args=(steps, tls), daemon=True).start()


main()
