"""A proxy auto-configuration file: browsers send through the proxy what the routes do, and no more."""

from __future__ import annotations

import json
from collections.abc import Sequence

from session_proxy.policy.rules import DIRECT, AnyMatch, CidrMatch, GlobMatch, Match, NameMatch, Rule

# What browsers do with the file is specified by Netscape's paper of 1996 alone, so this keeps to ECMAScript 3
# and uses none of the paper's helpers: isInNet would look names up, with the browser waiting.
TEMPLATE = """\
// Made from the routes of a session-proxy profile.
var PROXY = %(proxy)s;
// Each rule: [match..., ports or null, goes through the proxy, a name may resolve into it].
var RULES = %(rules)s;
var DEFAULT = %(default)s;

// The 32 or 128 bits of an address as text of 0 and 1, or null where host is a name.
function bits(host) {
  var four = /^(\\d{1,3})\\.(\\d{1,3})\\.(\\d{1,3})\\.(\\d{1,3})$/.exec(host);
  var text = "", i;
  if (four) {
    for (i = 1; i < 5; i++) text += binary(parseInt(four[i], 10), 8);
    return text;
  }
  if (host.indexOf(":") < 0) return null;
  host = host.replace(/^\\[|\\]$/g, "").replace(/%%.*$/, "");
  var tail = /^(.*:)(\\d+\\.\\d+\\.\\d+\\.\\d+)$/.exec(host);
  if (tail) {
    var low = bits(tail[2]);
    host = tail[1] + hexadecimal(low.substr(0, 16)) + ":" + hexadecimal(low.substr(16));
  }
  var halves = host.split("::");
  var left = halves[0] ? halves[0].split(":") : [];
  var right = halves.length > 1 && halves[1] ? halves[1].split(":") : [];
  while (left.length + right.length < 8) left.push("0");
  left = left.concat(right);
  for (i = 0; i < 8; i++) text += binary(parseInt(left[i], 16), 16);
  // An IPv4 address within an IPv6 one (RFC 4291, section 2.5.5.2) is routed as IPv4.
  return text.substr(0, 96) === MAPPED ? text.substr(96) : text;
}

function hexadecimal(digits) {
  return parseInt(digits, 2).toString(16);
}

function binary(number, width) {
  var text = number.toString(2);
  while (text.length < width) text = "0" + text;
  return text;
}

var MAPPED = binary(0, 80) + binary(65535, 16);

function takes(match, host, address) {
  var kind = match.charAt(0), rest = match.substr(1);
  if (kind === "*") return true;
  if (kind === "=") return address === null && host === rest;
  if (kind === ".") {
    return address === null && host.length > rest.length && host.substr(host.length - rest.length) === rest;
  }
  // "4" or "6", then the bits of the prefix.
  return address !== null && address.length === (kind === "4" ? 32 : 128) &&
    address.substr(0, rest.length) === rest;
}

function portOf(url) {
  var authority = /^([a-z0-9+.-]+):\\/\\/([^\\/?#]*)/i.exec(url);
  if (!authority) return 80;
  var port = /:(\\d+)$/.exec(authority[2].replace(/^.*@/, "").replace(/^\\[[^\\]]*\\]/, ""));
  if (port) return parseInt(port[1], 10);
  var scheme = authority[1].toLowerCase();
  return scheme === "https" || scheme === "wss" ? 443 : scheme === "ftp" ? 21 : 80;
}

function FindProxyForURL(url, host) {
  host = host.toLowerCase().replace(/\\.$/, "");
  var address = bits(host), port = portOf(url), i, j;
  for (i = 0; i < RULES.length; i++) {
    var rule = RULES[i], open = rule[1] === null;
    for (j = 0; !open && j < rule[1].length; j++) open = rule[1][j][0] <= port && port <= rule[1][j][1];
    if (!open) continue;
    for (j = 0; j < rule[0].length; j++) {
      if (takes(rule[0][j], host, address)) return rule[2] ? PROXY : "DIRECT";
    }
    // Only the proxy can tell what the name resolves to there, so it is asked.
    if (rule[3] && address === null) return PROXY;
  }
  return DEFAULT;
}
"""


def proxy_auto_config(rules: Sequence[Rule], default: str, proxy: str) -> str:
    """Return a PAC file that sends to *proxy* (``HOST:PORT``) what *rules* and *default* do not send direct.

    What is to be rejected goes to the proxy too, which refuses it.
    """
    through = f"PROXY {proxy}"
    table = [
        [
            [_match(match) for match in rule.match],
            None if rule.ports is None else [list(ports) for ports in rule.ports.ranges],
            _proxied(rule.upstream),
            rule.resolve == "local" and any(rule.networks()),
        ]
        for rule in rules
    ]
    return TEMPLATE % {
        "proxy": json.dumps(through),
        "rules": "[" + ",".join("\n  " + json.dumps(row) for row in table) + "\n]",
        "default": "PROXY" if _proxied((default,)) else '"DIRECT"',
    }


def _proxied(upstreams: Sequence[str]) -> bool:
    # A list that starts with direct goes through the proxy, which alone can fall back.
    return tuple(upstreams) != (DIRECT,)


def _match(match: Match) -> str:
    match match:
        case AnyMatch():
            return "*"
        case NameMatch(name):
            return f"={name}"
        case GlobMatch(suffix):
            return f"..{suffix}"
        case CidrMatch(network):
            bits = f"{int(network.network_address):0{network.max_prefixlen}b}"
            return f"{network.version}{bits[: network.prefixlen]}"
