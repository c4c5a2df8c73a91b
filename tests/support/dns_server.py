"""A name server for tests: ``python -m tests.support.dns_server`` prints its UDP port, and has a zone of its own."""

from __future__ import annotations

import socket
import sys

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

LARGEST = 65535
SUFFIX = "lab.test."
# Longer than a datagram of any tunnel: it has to travel in pieces.
LONG_TEXT = [f"{number:03}" + "x" * 200 for number in range(15)]

ZONE = {
    (f"www.{SUFFIX}", "A"): ["192.0.2.1", "192.0.2.2"],
    (f"www.{SUFFIX}", "AAAA"): ["2001:db8::1"],
    (f"long.{SUFFIX}", "TXT"): [f'"{text}"' for text in LONG_TEXT],
}


def answer(wire: bytes) -> bytes:
    """Return the answer to a query."""
    query = dns.message.from_wire(wire)
    reply = dns.message.make_response(query)
    reply.flags |= dns.flags.AA
    question = query.question[0]
    kind = question.to_text().split()[-1]
    records = ZONE.get((question.name.to_text(), kind))
    if records:
        reply.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *records))
    else:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    return reply.to_wire(max_size=max(query.payload, 512))


def main() -> None:
    """Serve until killed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        sys.stdout.write(f"{server.getsockname()[1]}\n")
        sys.stdout.flush()
        while True:
            wire, client = server.recvfrom(LARGEST)
            server.sendto(answer(wire), client)


if __name__ == "__main__":
    main()
