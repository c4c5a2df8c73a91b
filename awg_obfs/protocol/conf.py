"""AmneziaWG's ``.conf`` files, read as awg(8) and awg-quick(8) read them, and written so that they read the same.

What a tunnel of IP packets needs and a tunnel of streams does not (addresses, routes, DNS, commands) is kept for the
way back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

import attrs

from awg_obfs.errors import ConfFileError, KeyFormatError, LineProblem, NumberError, ParametersError, shown
from awg_obfs.protocol.conf_lines import BLANKS, Field, Section, split
from awg_obfs.protocol.decimals import MAX_UINT16, parse_unsigned
from awg_obfs.protocol.keys import is_usable_public_key, key_from_text, key_to_text
from awg_obfs.protocol.parameters import (
    DEFAULT,
    JUNK_KEYS,
    PADDING_KEYS,
    SIGNATURE_KEYS,
    Parameters,
    parameters_from_mapping,
)
from awg_obfs.protocol.parameters import KEYS as PARAMETER_KEYS
from awg_obfs.protocol.tags import TagChain, TagKind

# awg(8) reads no longer text for H and I.
MAX_TEXT = 5119

# It bounds the datagrams of streams as it bounds those of packets, so whoever reads the file can go by it.
MTU = "MTU"

# What awg-quick(8) reads, and what awg(8) reads and we have no use for; as they are spelt.
KEPT_INTERFACE = (
    "Address",
    "DNS",
    MTU,
    "Table",
    "PreUp",
    "PostUp",
    "PreDown",
    "PostDown",
    "SaveConfig",
    "FwMark",
)
KEPT_PEER = ("AllowedIPs", "AdvancedSecurity")

_INTERFACE_NAMES = {name.lower(): name for name in ("PrivateKey", "ListenPort", *KEPT_INTERFACE)}
_PEER_NAMES = {
    name.lower(): name
    for name in ("PublicKey", "PresharedKey", "Endpoint", "PersistentKeepalive", *KEPT_PEER)
}
_VERSION_1_5 = ("j1", "j2", "j3", "itime")
_VERSION_3 = (
    "headerprotectionkey", "contentpaddingaddition", "randomtrailers", "disablecookies", "rekeyaftertime",
    "rekeytimeout", "rejectaftertime", "keepalivetimeout", "maxhandshakeattempts",
)  # fmt: skip

Kept = tuple[tuple[str, str], ...]
"""Fields that mean nothing here, in their order: name and value."""


@attrs.frozen
class ConfInterface:
    """What a file says about our own side."""

    private_key: bytes | None = attrs.field(default=None, repr=False)
    listen_port: int = 0
    parameters: Parameters = DEFAULT
    kept: Kept = ()


@attrs.frozen
class ConfPeer:
    """What a file says about one peer; *endpoint* is ``HOST:PORT``, or empty where the peer is to call us."""

    public_key: bytes
    preshared_key: bytes | None = attrs.field(default=None, repr=False)
    endpoint: str = ""
    persistent_keepalive: int = 0
    kept: Kept = ()


@attrs.frozen
class ConfFile:
    """One ``.conf`` file; *warnings* tell in one line each what was read and has no effect here."""

    interface: ConfInterface
    peers: tuple[ConfPeer, ...] = ()
    warnings: tuple[str, ...] = attrs.field(default=(), eq=False)

    @classmethod
    def parse(cls, content: str) -> Self:
        """Return what a file's *content* says.

        Raises:
          ConfFileError: it lists every fault, with its line. No message shows a key.

        """
        sections = split(content)
        reader = _Reader(list(sections.problems))
        interface = reader.interface(sections.interface)
        peers = [reader.peer(section) for section in sections.peers]
        if reader.problems:
            raise ConfFileError(sorted(reader.problems, key=lambda problem: problem.line))
        return cls(interface, tuple(peer for peer in peers if peer is not None), tuple(reader.warnings))

    def as_text(self) -> str:
        """Return the file's content. It holds the private key."""
        lines = ["[Interface]", *_interface_lines(self.interface)]
        for peer in self.peers:
            lines += ["", "[Peer]", *_peer_lines(peer)]
        return "\n".join(lines) + "\n"

    @property
    def export_warnings(self) -> tuple[str, ...]:
        """What awg(8) and the reference will not take of this file, each in one line."""
        return tuple(_export_warnings(self.interface.parameters))


class _BadValueError(ValueError):
    def __init__(self, message: str, fix: str) -> None:
        self.fix = fix
        super().__init__(message)


class _Reader:
    """Turns sections into values, and collects what is wrong with them."""

    def __init__(self, problems: list[LineProblem]) -> None:
        self.problems = problems
        self.warnings: list[str] = []

    def interface(self, section: Section) -> ConfInterface:
        """Return what the interface section says, as far as it can be read."""
        interface = ConfInterface()
        values: dict[str, str | int] = {}
        lines: dict[str, int] = {}
        kept: list[tuple[str, str]] = []
        for field in section.fields:
            try:
                match field.key:
                    case "privatekey":
                        interface = attrs.evolve(interface, private_key=_key(field))
                    case "listenport":
                        interface = attrs.evolve(interface, listen_port=_number(field))
                    case key if key in SIGNATURE_KEYS and not field.value:
                        values.pop(key, None)
                        self.warnings.append(
                            f"line {field.line}: {field.name} is empty and left out, as later versions of awg(8) do"
                        )
                    case key if key in PARAMETER_KEYS:
                        values[key] = _number(field) if key in JUNK_KEYS + PADDING_KEYS else _text(field)
                        lines[key] = field.line
                    case key if _INTERFACE_NAMES.get(key) in KEPT_INTERFACE:
                        kept.append((_INTERFACE_NAMES[key], field.text))
                    case key:
                        raise _unknown(field.name, elsewhere="[Peer]" if key in _PEER_NAMES else "")
            except _BadValueError as exc:
                self._wrong(field.line, f"{field.name}: {exc}", exc.fix)
        self._keep("[Interface]", [field for field in kept if field[0] != MTU])
        return attrs.evolve(interface, parameters=self._parameters(values, lines), kept=tuple(kept))

    def peer(self, section: Section) -> ConfPeer | None:
        """Return what a peer section says, or none where it does not say who the peer is."""
        public_key: bytes | None = None
        peer = ConfPeer(b"")
        kept: list[tuple[str, str]] = []
        for field in section.fields:
            try:
                match field.key:
                    case "publickey":
                        public_key = _public_key(field)
                    case "presharedkey":
                        peer = attrs.evolve(peer, preshared_key=_key(field))
                    case "endpoint":
                        peer = attrs.evolve(peer, endpoint=_endpoint(field))
                    case "persistentkeepalive":
                        off = field.value.lower() == "off"
                        peer = attrs.evolve(peer, persistent_keepalive=0 if off else _number(field))
                    case key if _PEER_NAMES.get(key) in KEPT_PEER:
                        kept.append((_PEER_NAMES[key], field.text))
                    case key:
                        inside = key in _INTERFACE_NAMES or key in PARAMETER_KEYS
                        raise _unknown(field.name, elsewhere="[Interface]" if inside else "")
            except _BadValueError as exc:
                self._wrong(field.line, f"{field.name}: {exc}", exc.fix)
        self._keep("[Peer]", kept)
        if all(field.key != "publickey" for field in section.fields):
            self._wrong(section.line, "this peer has no PublicKey", "add it: a peer is known by its key")
        return None if public_key is None else attrs.evolve(peer, public_key=public_key, kept=tuple(kept))

    def _parameters(self, values: dict[str, str | int], lines: dict[str, int]) -> Parameters:
        try:
            return parameters_from_mapping(values)
        except ParametersError as exc:
            for problem in exc.problems:
                self._wrong(lines[problem.key], f"{problem.key.capitalize()}: {problem.message}", problem.fix)
            return DEFAULT

    def _keep(self, where: str, kept: list[tuple[str, str]]) -> None:
        if kept:
            names = ", ".join(dict.fromkeys(name for name, _ in kept))
            self.warnings.append(
                f"{where} {names}: without effect here, where streams are carried and no IP packets"
            )

    def _wrong(self, line: int, message: str, fix: str) -> None:
        self.problems.append(LineProblem(line, message, fix))


def _unknown(name: str, elsewhere: str) -> _BadValueError:
    if elsewhere:
        return _BadValueError("does not belong to this section", f"move it to {elsewhere}")
    if name.lower() in _VERSION_1_5:
        return _BadValueError("belongs to AmneziaWG 1.5, which is not spoken here", "remove the line")
    if name.lower() in _VERSION_3:
        return _BadValueError("belongs to AmneziaWG 3, which is not spoken here", "turn it off on both sides")
    return _BadValueError("there is no such key", "remove the line, or look for a slip")


def _key(field: Field) -> bytes:
    try:
        return key_from_text(field.value)
    except KeyFormatError as exc:
        raise _BadValueError(str(exc), "copy it once more") from exc


def _public_key(field: Field) -> bytes:
    key = _key(field)
    if not is_usable_public_key(key):
        raise _BadValueError("is a key that nobody can have", "copy it once more")
    return key


def _number(field: Field) -> int:
    try:
        return parse_unsigned(field.value, MAX_UINT16)
    except NumberError as exc:
        raise _BadValueError(f"{shown(field.value)} is no number up to {MAX_UINT16}", "write one") from exc


def _text(field: Field) -> str:
    if len(field.value) > MAX_TEXT:
        raise _BadValueError(
            f"has {len(field.value)} characters, and awg(8) reads {MAX_TEXT}", "make it shorter"
        )
    return field.value


def _endpoint(field: Field) -> str:
    host, _, port = field.value.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        if host and (bracketed or ":" not in host) and parse_unsigned(port, MAX_UINT16):
            return field.value
    except NumberError:
        pass
    raise _BadValueError(f"{shown(field.value)} is no address with a port", "write HOST:PORT, or [IPV6]:PORT")


def _export_warnings(parameters: Parameters) -> Iterator[str]:
    for key, chain in zip(SIGNATURE_KEYS, parameters.signatures, strict=True):
        if chain is None:
            continue
        if any(tag.kind is TagKind.COUNTER for tag in chain.tags):
            yield f"{key.capitalize()}: amneziawg-go refuses <c>, which only we offer; put <r 4> in its place"
        text = _chain_text(chain)
        if not text:
            yield f"{key.capitalize()}: left out, for awg(8) has no way to write an empty packet"
        if len(text) > MAX_TEXT:
            yield f"{key.capitalize()}: has {len(text)} characters, and awg(8) reads {MAX_TEXT}; make it shorter"


def _chain_text(chain: TagChain) -> str:
    """Return the text of *chain*, without what a line of the file cannot hold; it is outside the tags anyway."""
    text = chain.text
    fits = text == text.strip(BLANKS) and not any(mark in text for mark in "#\r\n")
    return text if fits else chain.normalised


def _interface_lines(interface: ConfInterface) -> Iterator[str]:
    if interface.private_key is not None:
        yield f"PrivateKey = {key_to_text(interface.private_key)}"
    if interface.listen_port:
        yield f"ListenPort = {interface.listen_port}"
    yield from (f"{name} = {value}" for name, value in interface.kept)
    values = interface.parameters.as_mapping()
    yield from (f"{key.capitalize()} = {value}" for key, value in values.items() if key not in SIGNATURE_KEYS)
    for key, chain in zip(SIGNATURE_KEYS, interface.parameters.signatures, strict=True):
        if chain is not None and (text := _chain_text(chain)):
            yield f"{key.capitalize()} = {text}"


def _peer_lines(peer: ConfPeer) -> Iterator[str]:
    yield f"PublicKey = {key_to_text(peer.public_key)}"
    if peer.preshared_key is not None:
        yield f"PresharedKey = {key_to_text(peer.preshared_key)}"
    if peer.endpoint:
        yield f"Endpoint = {peer.endpoint}"
    yield from (f"{name} = {value}" for name, value in peer.kept)
    if peer.persistent_keepalive:
        yield f"PersistentKeepalive = {peer.persistent_keepalive}"
